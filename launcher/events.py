"""Everything that can happen to a run, as one closed union of values. ``supervisor.py`` matches over it.

Named tuples, not frozen dataclasses: those take 0.9 ms each to define (Python 3.11), five times as long, and this module
is imported while everybody waits for the first agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class AgentReady(NamedTuple):
    """An agent said hello: ``facts`` as ``agent/facts.py`` gathers them."""

    host: str
    facts: Mapping[str, Any]


class AgentLost(NamedTuple):
    """The connection to an agent ended, or fell silent, before we said bye; ``why`` in words."""

    host: str
    why: str


class LinkDown(NamedTuple):
    """The connection to an agent is lost, and is being looked for again; ``why`` in words. Its workers go on meanwhile."""

    host: str
    why: str


class LinkUp(NamedTuple):
    """It is back, after so many seconds; nothing was lost."""

    host: str
    after: float


class AgentFault(NamedTuple):
    """An agent could not do what it was told: ``order`` is what it was told, ``task`` its number where there is one, and ``step``
    what of it could not be done, in words.
    """

    host: str
    order: str
    number: int
    reason: str
    task: int | None = None
    step: str = "be started"


class TreeLacks(NamedTuple):
    """Of the program's files, this host needs those with these numbers (``agent/trees.py``)."""

    host: str
    numbers: tuple[int, ...]


class TreePlaced(NamedTuple):
    """The program's files are in this folder of this host."""

    host: str
    folder: str


class FilesFound(NamedTuple):
    """What this host has of the files that were asked for: path, permissions and size of each."""

    host: str
    entries: tuple[tuple[str, int, int], ...]


class FilePiece(NamedTuple):
    """The next bytes of one of those files."""

    host: str
    number: int
    data: bytes


class PortsLeased(NamedTuple):
    """The ports that this host holds for its tasks."""

    host: str
    ports: tuple[int, ...]


class TasksConnected(NamedTuple):
    """The addresses that this host has made for its tasks, one each (``agent/switch.py``)."""

    host: str
    addresses: tuple[str, ...]


class LineSet(NamedTuple):
    """The line between two such addresses was cut, or mended (``up``)."""

    between: tuple[str, str]
    up: bool


class PortsReleased(NamedTuple):
    """This host holds no ports any more."""

    host: str


class TaskStarted(NamedTuple):
    """The task's process exists."""

    task: int
    pid: int


class TaskOutput(NamedTuple):
    """Bytes that the task wrote, as they came."""

    task: int
    data: bytes


class TaskReport(NamedTuple):
    """One record from the task's control descriptor (``kind`` is state, progress, checkpoint, error, exit, ...)."""

    task: int
    record: Mapping[str, Any]


class TaskSignalled(NamedTuple):
    """A signal that was ordered for a task was sent; ``alive`` False: its process had ended before."""

    task: int
    signal: str
    alive: bool


class TaskStopped(NamedTuple):
    """A signal (SIGSTOP, SIGTSTP ...) has stopped the task's process; ``time`` in seconds since the epoch."""

    task: int
    time: float


class TaskResumed(NamedTuple):
    """The task's process was let go on."""

    task: int
    time: float


class TaskStacks(NamedTuple):
    """Where the task was when all were asked (``agent/stacks.py``).

    Attributes:
        state: what the kernel says of its main process (proc(5)): ``T`` for stopped, ``D`` for one that waits for a disk.
        text: its Python stacks as faulthandler writes them; empty when it told nothing.
    """

    task: int
    state: str
    text: str


class HostCalled(NamedTuple):
    """All tasks of this host that live have told where they are, as far as they do."""

    host: str


class PortsListening(NamedTuple):
    """The leased ports of this host on which its tasks listen."""

    host: str
    ports: tuple[int, ...]


class HostAnswered(NamedTuple):
    """What this host says to a question (``agent/errands.py``); None: it could not find out.

    Attributes:
        about: which question.
        ahead: how far its clock is ahead of ours, in seconds, less the time that the answer took to get here.
    """

    host: str
    about: str
    said: Any
    ahead: float


class HostTerminated(NamedTuple):
    """Somebody asked the agent of this host to end (SIGTERM), as a host does that goes down."""

    host: str


class StacksAsked(NamedTuple):
    """Somebody wants to know where all tasks are (``launcher/door.py``)."""


class StopAsked(NamedTuple):
    """Somebody wants the run to end (``launcher/door.py``), as a signal to the launcher says it; ``now`` as a second one."""

    now: bool


class TaskExited(NamedTuple):
    """The task's process is gone, reaped, and its output drained.

    Attributes:
        status: its exit status, None when a signal ended it.
        signal: the number of the signal that ended it.
        oom: the kernel killed for memory while it ran, and a SIGKILL that nobody here sent ended it.
        sent: names of the signals that its agent sent it, in order.
        peak: the most memory it had resident, in bytes.
        time: when, in seconds since the epoch, by the launcher's clock.
    """

    task: int
    status: int | None
    signal: int | None
    core: bool
    oom: bool
    sent: tuple[str, ...]
    peak: int
    time: float


class Signalled(NamedTuple):
    """A signal asked the launcher itself to stop."""

    number: int


class FaultOrdered(NamedTuple):
    """A test wants something to happen to a task, or to its line to a peer (``launcher/testing/drill.py``)."""

    task: int
    fault: str
    cpu: float = 1.0
    peer: int = -1


class DeadlinePassed(NamedTuple):
    """A timer that the supervisor had set ran out; ``name`` says which."""

    name: str


Event = (
    AgentReady
    | AgentLost
    | LinkDown
    | LinkUp
    | AgentFault
    | TreeLacks
    | TreePlaced
    | FilesFound
    | FilePiece
    | PortsLeased
    | TasksConnected
    | LineSet
    | PortsReleased
    | PortsListening
    | HostAnswered
    | HostTerminated
    | TaskStarted
    | TaskOutput
    | TaskReport
    | TaskSignalled
    | TaskStopped
    | TaskResumed
    | TaskStacks
    | HostCalled
    | TaskExited
    | Signalled
    | StacksAsked
    | StopAsked
    | FaultOrdered
    | DeadlinePassed
)
