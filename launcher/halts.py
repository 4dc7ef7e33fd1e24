"""Tasks that a signal has stopped. A debugger may have done that, or a moment's load: their peers wait, up to a point. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.commands import Say, SetTimer

if TYPE_CHECKING:
    from launcher.commands import Command
    from launcher.roster import TaskState

# A stopped worker is given up after as many seconds. TensorFlow's own heartbeats end its peers after 7 to 12 (2.21).
PATIENCE = 10.0


class Halts:
    """Who is waited for, each by the name of its deadline."""

    def __init__(self) -> None:
        self._waited: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._waited

    def begin(self, state: TaskState, at: float) -> list[Command]:
        """A task has been stopped, at ``at``."""
        state.stopped = at
        name = _deadline(state)
        self._waited[name] = state.task.number
        said = f"{state.task.label} was stopped by a signal; if it does not go on within {PATIENCE:g} s, the run ends"
        return [Say(said), SetTimer(name, PATIENCE)]

    def end(self, state: TaskState) -> list[Command]:
        """A task goes on."""
        # What we stop is let go on by us, so that it can end: that changes nothing of what happened.
        if state.stopped is None or state.told_to_stop is not None:
            return []
        state.stopped = None
        self._waited.pop(_deadline(state), None)
        return [Say(f"{state.task.label} goes on")]

    def expire(self, name: str) -> int:
        """The deadline of this name has passed; returns the number of the task."""
        return self._waited.pop(name)


def _deadline(state: TaskState) -> str:
    return f"stopped {state.task.number}"
