"""A roll call: every task that lives is asked where it is, and those that do not answer are not waited for long. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import stacks

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from launcher.events import TaskStacks
    from launcher.placement import Task

# Within as many seconds all hosts must have answered. An agent itself gives its tasks 2 (agent/stacks.py).
PATIENCE = 5.0


class RollCall:
    """What has been heard so far.

    Args:
        tasks: those that live.
        warm: the numbers of those that are to be forked.

    Attributes:
        asked: somebody waits for the answers.
        last: when it is over, all tasks are stopped.
        late: those that are stopped for: they did not join the others in time.
    """

    def __init__(self, tasks: Iterable[Task], warm: Container[int] = ()) -> None:
        self.asked = False
        self.last = False
        self.late: list[Task] = []
        self._tasks = list(tasks)
        self._warm = warm
        self._unasked = {task.host for task in self._tasks}
        self._unheard = set(self._unasked)
        self._told: dict[int, TaskStacks] = {}
        self._over: set[int] = set()

    @property
    def complete(self) -> bool:
        """There is nothing more to be heard."""
        return not self._unheard

    def ask(self) -> list[str]:
        """The hosts that are to be asked now: each is asked once."""
        hosts, self._unasked = sorted(self._unasked), set()
        return hosts

    def take(self, told: TaskStacks) -> None:
        """A task's own answer."""
        self._told[told.task] = told

    def hear(self, host: str) -> None:
        """Nothing more is to come from this host."""
        self._unheard.discard(host)

    def close(self, over: Iterable[int]) -> None:
        """Learn which tasks have ended meanwhile."""
        self._over = set(over)

    def answers(self, tasks: Iterable[Task] | None = None) -> list[stacks.Answer]:
        """The answer of each task, in order."""
        return [stacks.Answer(task.label, *self._answer(task)) for task in (self._tasks if tasks is None else tasks)]

    def _answer(self, task: Task) -> tuple[str, str]:
        told = self._told.get(task.number)
        if told is not None and (told.text or task.number not in self._over):
            return told.state, told.text
        if task.number in self._over:
            return "", ""
        if task.host in self._unheard:
            return stacks.SILENT, ""
        return stacks.UNFORKED if task.number in self._warm else stacks.UNSTARTED, ""
