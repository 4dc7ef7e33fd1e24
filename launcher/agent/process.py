"""One worker as its agent sees it: started in a session of its own, watched until nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from functools import lru_cache

from . import kernel, stacks
from .leash import Leash
from .spawn import CONTROL_FD, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .spawn import Command

    Starter = Callable[["Command", int, int], int]

_LONGEST_RECORD = 1 << 16
# The marker by which a stray descendant is known as one of ours, whatever session it made itself.
MARKER = "TFLAUNCH_PROCESS"


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
        self.oom_kills = _oom_kills_by(int(time.monotonic()))
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
        self._leash = Leash(self.pid)
        for descriptor in self.open:
            os.set_blocking(descriptor, False)

    def terminate(self, grace: float) -> bool:
        """Begin the stop ladder: SIGTERM to the main process alone, so that a checkpoint can finish. False when it has ended."""
        if self.ended is None and self.kill_at is None:
            self._send(signal.SIGTERM)
            # A stopped process would not notice otherwise, and would sit out its grace for nothing.
            self._send(signal.SIGCONT)
            # One that still waits for its peers has nothing to save.
            self.kill_at = time.monotonic() + (0.0 if self.deaf else grace)
        return self.ended is None

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

    def has_ended(self, status: int, peak: int) -> None:
        """It has been reaped, with this wait status and so many KiB resident at most."""
        self.ended = (status, peak, time.time())
        self.kill_at = None
        self._leash.loosen()

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
    """Start a worker from its program file; returns its process id.

    Raises:
        NotStartedError: it cannot be; the error says what could not be done.
    """
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return spawn(command, (null, output_end, output_end, control_end))
    finally:
        os.close(null)


def _is_time(value: object) -> bool:
    """Whether it can be seconds since the epoch; NaN and infinity cannot."""
    return isinstance(value, int | float) and 0 <= value < 1e11


@lru_cache(maxsize=1)
def _oom_kills_by(second: int) -> int:
    """The same, read once a second at most: it takes 0.1 ms, and many processes may be born in one."""
    del second
    return _oom_kills()


def _oom_kills() -> int:
    """How often this kernel has killed for memory since it booted, in a cgroup or in all (0 where it does not say)."""
    with suppress(OSError, ValueError), open("/proc/vmstat", "rb") as file:
        _, _, rest = file.read().partition(b"oom_kill ")
        return int(rest.split(b"\n", 1)[0])
    return 0
