"""The tasks of an attempt, and how far each of them has come. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from launcher.verdict import Ending

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from launcher.events import TaskExited
    from launcher.placement import Task


@dataclass
class TaskState:
    """What is known of one task.

    Attributes:
        exited: how it ended, once it has.
        error: what it told of its own failure.
        lost: why its host is out of reach for good; empty as long as it is not.
        lost_at: since when; this and all further times are seconds since the epoch.
        told_to_stop: when it was.
        stopped: when a signal stopped it, if it has not gone on since.
        preempted: what it told when its host was taken away from it.
        unanswered: the numbers of the peers that left it without an answer.
    """

    task: Task
    exited: TaskExited | None = None
    error: Mapping[str, Any] | None = None
    lost: str = ""
    lost_at: float = 0.0
    told_to_stop: float | None = None
    stopped: float | None = None
    preempted: Mapping[str, Any] | None = None
    unanswered: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        """Nothing more is to come of it."""
        return self.exited is not None or bool(self.lost)

    @property
    def succeeded(self) -> bool:
        """It has ended as it should."""
        return self.exited is not None and self.exited.status == 0

    def ending(self, *, waited: bool) -> Ending:
        """How it ended; ``waited`` says whether the run waited for it where it was stopped."""
        stopped = self.stopped if waited else None
        unanswered = tuple(sorted(self.unanswered))
        lost = self.lost, self.lost_at
        return Ending(self.task, self.exited, self.error, *lost, stopped, self.preempted, unanswered)


class Roster:
    """All tasks, by number."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._all = [TaskState(task) for task in tasks]
        self._left = [one.task.number for one in self._all]

    def __getitem__(self, number: int) -> TaskState:
        return self._all[number]

    def __iter__(self) -> Iterator[TaskState]:
        return iter(self._all)

    @property
    def finished(self) -> bool:
        """All are over."""
        # Asked after every event: who has been found to be over is not looked at again.
        while self._left and self._all[self._left[-1]].over:
            self._left.pop()
        return not self._left

    def alive(self) -> list[TaskState]:
        """Those that are not over."""
        return [one for one in self._all if not one.over]

    def over(self) -> list[int]:
        """The numbers of those that are."""
        return [one.task.number for one in self._all if one.over]

    def lose(self, host: str, why: str, now: float) -> None:
        """Nobody will hear any more of those on this host."""
        for one in self.alive():
            if one.task.host == host:
                one.lost, one.lost_at = why, now

    def exits(self) -> dict[int, TaskExited]:
        """How each ended that was seen to end, by number."""
        return {one.task.number: one.exited for one in self._all if one.exited is not None}
