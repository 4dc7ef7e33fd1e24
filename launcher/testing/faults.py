"""What is to go wrong in the next run by itself: at steps of its tasks, or with their disks. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Faults:
    """Faults that the tasks will have themselves (``worker/faults.py``), and lines that are cut from the beginning.

    Attributes:
        steps: by task, steps and the signal that it sends itself when it has reported one.
        disks: directories in whose place each task finds a disk of its own, and the room that is left on it.
        cut: pairs of tasks whose line is cut before they start.
    """

    steps: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    disks: list[tuple[str, int]] = field(default_factory=list)
    cut: list[tuple[int, int]] = field(default_factory=list)

    def at_step(self, step: int, task: int, signal: str) -> None:
        """Add one at a step."""
        self.steps.setdefault(task, []).append((step, signal))

    @property
    def deadly(self) -> bool:
        """Whether a task ends itself."""
        return any(signal == "SIGKILL" for steps in self.steps.values() for _, signal in steps)

    @property
    def stops(self) -> dict[int, int]:
        """By task, the step at which it stops itself."""
        found = {task: [step for step, signal in steps if signal == "SIGSTOP"] for task, steps in self.steps.items()}
        return {task: min(steps) for task, steps in found.items() if steps}

    def by_task(self, labels: Sequence[str]) -> dict[str, dict[str, object]]:
        """As the tasks are told: what concerns each, by its name (``worker:1``)."""
        return {
            label.replace(" ", ":"): {"steps": self.steps.get(number, []), "disks": self.disks}
            for number, label in enumerate(labels)
        }
