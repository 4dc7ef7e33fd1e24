"""Everything that a run's supervisor can want done, as one closed union of values. ``attempt.py`` carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from launcher.stacks import Report


class Spawn(NamedTuple):
    """Start this task's process."""

    task: int


class Stop(NamedTuple):
    """Walk the stop ladder with each of these tasks: SIGTERM, its own grace period, SIGKILL.

    ``look``: before that, see which peers leave it without an answer, as the reason may be one of them.
    """

    tasks: tuple[int, ...]
    grace: float
    look: bool = False


class Kill(NamedTuple):
    """End this task now."""

    task: int


class Signal(NamedTuple):
    """Send this signal to the task's main process, as anybody from outside might."""

    task: int
    name: str


class SetLine(NamedTuple):
    """Cut the line between two tasks, or mend it (``up``)."""

    one: int
    other: int
    up: bool


class AskWhoListens(NamedTuple):
    """Ask the agent of this host on which of its ports somebody listens."""

    host: str


class AskStacks(NamedTuple):
    """Ask all tasks of this host where they are."""

    host: str


class ShowStacks(NamedTuple):
    """Tell whoever has asked where all tasks are."""

    report: Report


class KeepStacks(NamedTuple):
    """Keep it with the attempt."""

    report: Report


class Abandon(NamedTuple):
    """Wait no longer for the connection to this host, which is lost."""

    host: str


class SetTimer(NamedTuple):
    """Post DeadlinePassed(name) after this many seconds."""

    name: str
    seconds: float


class Say(NamedTuple):
    """Tell the person who is watching."""

    text: str


Command = (
    Spawn
    | Stop
    | Kill
    | Signal
    | SetLine
    | AskWhoListens
    | AskStacks
    | ShowStacks
    | KeepStacks
    | Abandon
    | SetTimer
    | Say
)
