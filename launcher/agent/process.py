"""One worker as its agent sees it: started in a session of its own, watched until nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress

from . import kernel, stacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Starter = Callable[["Command", int, int], int]

# The descriptor on which a worker tells more than its output does; the environment names it, so it may move one day.
CONTROL_FD = 3
_LONGEST_RECORD = 1 << 16
# The marker by which a stray descendant is known as one of ours, whatever session it made itself.
MARKER = "TFLAUNCH_PROCESS"


class Command:
    """What is to become a process.

    Attributes:
        env: its whole environment.
        cores: those it may run on; none for all of the agent's.
        network: a descriptor of the network namespace that it is to be in; None for the agent's.
    """

    def __init__(
        self,
        argv: Sequence[str],
        cwd: str | None,
        env: Mapping[str, str],
        cores: Sequence[int],
        network: int | None = None,
    ) -> None:
        self.argv = argv
        self.cwd = cwd
        self.env = env
        self.cores = cores
        self.network = network

    def adding(self, variables: Mapping[str, str]) -> Command:
        """The same with these variables too."""
        return Command(self.argv, self.cwd, {**self.env, **variables}, self.cores, self.network)


class Process:
    """A worker's main process and its two pipes: output, and the control descriptor's lines.

    ``start`` makes the process, given the command and the pipes' other ends, and returns its id; OSError when it cannot.

    Attributes:
        ended: how the main process ended, once it has been reaped: wait status, peak resident KiB, and when.
        signals: what the agent itself sent to it, in order.
        kill_at: when the stop ladder reaches SIGKILL (monotonic), while one is under way.
        stacks: its descriptor for them, once it has told (stacks.py); -1: none.
        deaf: it has told that SIGTERM does nothing to it for now: it waits for its peers (worker/sigterm.py).
    """

    def __init__(self, number: int, command: Command, start: Starter) -> None:
        self.number = number
        self.marker = f"{os.getpid()}.{number}.{time.time_ns()}"
        self.ended: tuple[int, int, float] | None = None
        self.signals: list[str] = []
        self.kill_at: float | None = None
        self.drain_by: float | None = None
        self.stacks = -1
        self.deaf = False
        self.oom_kills = _oom_kills()
        output, output_end = os.pipe()
        control, control_end = os.pipe()
        kernel.widen(output)
        self.open = {output, control}
        self.output, self.control = output, control
        # As /proc/PID/fd shows it: how a stray that dropped session and environment is still known.
        self.pipe = f"pipe:[{os.fstat(output).st_ino}]"
        self._lines = b""
        ours = {MARKER: self.marker, "TFLAUNCH_CONTROL_FD": str(CONTROL_FD)}
        try:
            self.pid = start(command.adding(ours), output_end, control_end)
        except OSError:
            for descriptor in self.open:
                os.close(descriptor)
            raise
        finally:
            os.close(output_end)
            os.close(control_end)
        for descriptor in self.open:
            os.set_blocking(descriptor, False)

    def terminate(self, grace: float) -> None:
        """Begin the stop ladder: SIGTERM to the main process alone, so that a checkpoint can finish."""
        if self.ended is None and self.kill_at is None:
            self._send(signal.SIGTERM)
            # A stopped process would not notice otherwise, and would sit out its grace for nothing.
            self._send(signal.SIGCONT)
            # One that still waits for its peers has nothing to save.
            self.kill_at = time.monotonic() + (0.0 if self.deaf else grace)

    def kill(self) -> None:
        """End the ladder: SIGKILL to the main process and its group; what escaped is swept once it is gone."""
        self.kill_at = None
        if self.ended is None:
            self._send(signal.SIGKILL)
            self.kill_group()

    def deliver(self, name: str) -> bool:
        """Send a signal as somebody else might: it is none of ours. False when the process has ended already."""
        if self.ended is None:
            standing = stacks.state_of(self.pid) == "T"
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.Signals[name])
                if name == "SIGSTOP" and not standing:  # of one that stands already, the kernel tells no second time
                    # One that runs on another core stops a moment later; what was stopped is to stand still.
                    os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return self.ended is None

    def kill_group(self) -> None:
        """SIGKILL whatever is left of the process group. Only before the leader is reaped is its id surely ours."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reports(self, data: bytes) -> Iterator[dict[str, object]]:
        """Cut what came on the control descriptor into records; what is no JSON object is not for us."""
        *lines, rest = (self._lines + data).split(b"\n")
        # Anybody may write here: what never ends is no line, and what is no time is none.
        self._lines = rest if len(rest) <= _LONGEST_RECORD else b""
        for line in lines:
            with suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict):
                    if not _is_time(record.get("time", 0.0)):
                        del record["time"]
                    match record:
                        case {"kind": "state", "stacks": int(descriptor)}:
                            self.stacks = descriptor
                        case {"kind": "state", "deaf": bool(deaf)}:
                            self.deaf = deaf
                    yield record

    def obituary(self) -> dict[str, object]:
        """How it ended, for the wire. Call it once the main process is reaped and the pipes are drained."""
        assert self.ended is not None  # noqa: S101 - the caller's contract
        status, peak, at = self.ended
        signalled = os.WIFSIGNALED(status)
        killed_from_outside = signalled and os.WTERMSIG(status) == signal.SIGKILL and "SIGKILL" not in self.signals
        return {
            "status": None if signalled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if signalled else None,
            "core": os.WCOREDUMP(status),
            "oom": killed_from_outside and _oom_kills() > self.oom_kills,
            "sent": self.signals,
            "peak": peak * 1024,
            "time": at,
        }

    def _send(self, signum: signal.Signals) -> None:
        # Not reaped yet, so the id is still this process's own.
        with suppress(ProcessLookupError):
            os.kill(self.pid, signum)
            self.signals.append(signum.name)


def never_lived() -> dict[str, object]:
    """The obituary of a worker that was told to stop before it was started."""
    end = {"status": None, "signal": int(signal.SIGTERM), "core": False, "oom": False}
    return {**end, "sent": [signal.SIGTERM.name], "peak": 0, "time": time.time()}


def start(command: Command, output_end: int, control_end: int) -> int:
    """Start a worker from its program file; returns its process id."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return execute(command, (null, output_end, output_end, control_end))
    finally:
        os.close(null)


def execute(command: Command, descriptors: tuple[int, int, int, int]) -> int:
    """Run a command in a session of its own, which dies with this process. Returns its process id.

    Args:
        descriptors: what it gets as 0, 1, 2 and CONTROL_FD; on the last it is told when it cannot be run.
    """
    parent = os.getpid()
    # Until it has become the worker, the child answers SIGTERM as the agent does, through the agent's own wakeup pipe.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        pid = os.fork()
        if pid == 0:
            _become(command, descriptors, parent)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _become(command: Command, descriptors: tuple[int, int, int, int], parent: int) -> None:
    """In the child: turn into the command. Never returns; says why on the control descriptor when it cannot."""
    step = "start a session"
    control = descriptors[-1]
    try:
        os.setsid()
        kernel.die_with_parent(signal.SIGKILL, parent)
        if command.network is not None:
            step = "enter its network"
            kernel.enter_network(command.network)
        _wire_up(descriptors)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        # All others are the agent's, and the kernel refuses to exec with more than the limit that is set next (6.18).
        control = CONTROL_FD
        os.closerange(CONTROL_FD + 1, os.sysconf("SC_OPEN_MAX"))
        kernel.restore_descriptors()
        if command.cwd is not None:
            step = f"change to {command.cwd}"
            os.chdir(command.cwd)
        if command.cores and hasattr(os, "sched_setaffinity"):
            step = f"use cores {list(command.cores)}"
            os.sched_setaffinity(0, command.cores)
        step = f"run {command.argv[0]}"
        os.execvpe(command.argv[0], list(command.argv), command.env)
    except OSError as error:
        record = {
            "kind": "not-started",
            "step": step,
            "error": error.strerror,
            "errno": error.errno,
            "time": time.time(),
        }
        os.write(control, json.dumps(record).encode() + b"\n")
    finally:
        os._exit(127)


def _wire_up(descriptors: tuple[int, int, int, int]) -> None:
    # Out of the way first: the descriptors may have any numbers, the ones they are about to take included.
    for target, source in enumerate([_above(descriptor) for descriptor in descriptors]):
        os.dup2(source, target)


def _above(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, CONTROL_FD + 1)


def _is_time(value: object) -> bool:
    """Whether it can be seconds since the epoch; NaN and infinity cannot."""
    return isinstance(value, int | float) and 0 <= value < 1e11


def _oom_kills() -> int:
    """How often this kernel has killed for memory since it booted, in a cgroup or in all (0 where it does not say)."""
    with suppress(OSError, ValueError), open("/proc/vmstat", "rb") as file:
        _, _, rest = file.read().partition(b"oom_kill ")
        return int(rest.split(b"\n", 1)[0])
    return 0
