"""The signs of progress of an attempt: whether there are any, since when, and when they have been missing for too long. Pure."""

from __future__ import annotations

# Without progress for as many seconds, a run whose tasks tell of it is taken for hung, unless it was told otherwise.
HANG = 600.0


class Pulse:
    """What the tasks have told of their progress.

    Args:
        deadline: seconds without progress after which it has hung, 0 for never; None: HANG, once there was a sign.

    Attributes:
        spoke: a task has written something. Where none ever tells of progress, that counts.
        step: the last step that was told; None when none was.
        watched: somebody looks again when ``watch`` or ``look`` said.
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline = HANG if deadline is None else deadline
        self.spoke = False
        self.step: int | None = None
        self.watched = False
        self._first: float | None = None
        self._last: float | None = None
        self._seen: float | None = None

    @property
    def beats(self) -> bool:
        """A task has told of progress."""
        return self._last is not None

    @property
    def good(self) -> float:
        """Seconds from the first sign to the last."""
        return 0.0 if self._first is None or self._last is None else self._last - self._first

    def sign(self, step: object, now: float) -> None:
        """A task told of progress, and perhaps of its step."""
        self._first = now if self._first is None else self._first
        self._last = now
        if isinstance(step, int):
            self.step = max(step, self.step or 0)

    def watch(self, seconds: float | None = None) -> float:
        """From now on, or on: after how many seconds to look again; 0 for never."""
        self.watched, self._seen, self.spoke = True, self._last, False
        return self.deadline if seconds is None else seconds

    def look(self, now: float) -> float | None:
        """After how many seconds to look again; None when it has hung."""
        # By what has come since, not by the clock alone: that jumps, and a laptop that slept has not hung.
        if self._last is not None and self._last != self._seen:
            return self.watch(max(1.0, self.deadline - (now - self._last)))
        if self._last is None and self.spoke:
            return self.watch()
        return None

    def words(self) -> str:
        """What to say of one that has hung."""
        step = "" if self.step is None else f", after step {self.step:,}"
        return f"no task has made progress for {self.deadline:g} s{step}"
