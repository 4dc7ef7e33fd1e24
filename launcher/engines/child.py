"""An agent that is a child process, or that a child process carries the wire to."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher.agent.kernel import widen
from launcher.agent.spawn import Command
from launcher.agent.spawn import spawn as start
from launcher.engines import Landing
from launcher.errors import UnavailableError
from launcher.run_dir import last_lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

# The guard gives the last descendants 5 s (agent/guard.py).
_PATIENCE = 8.0
_SIGNALS = frozenset(int(number) for number in signal.Signals)


class Child:
    """A channel that is the two pipes of a child process.

    Args:
        log: where it complains.
    """

    landed = True

    def __init__(self, pid: int, stdin: int, stdout: int, log: Path) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.log = log
        self._code = 0
        self._open = True
        self._reaped = False

    def wait(self) -> str:
        """Reap it; one that does not go by itself is suspended, and is killed."""
        status = self._reap(time.monotonic() + _PATIENCE)
        self._reaped = True
        self._code = 0 if status is None else os.waitstatus_to_exitcode(status)
        return "it ended" if status is None else self.explain(self._code)

    def explain(self, code: int) -> str:
        """How it ended, in words."""
        # Its guard says 128 + signal when a signal ended the agent's loop, as a shell does.
        number = -code if code < 0 else code - 128
        if number == signal.SIGSTOP:
            return "stopped by a signal (SIGSTOP, or one like it), and did not go on"
        return f"killed by {signal.Signals(number).name}" if number in _SIGNALS else f"it ended with status {code}"

    @property
    def stranded(self) -> bool:
        """A guard that lives ends well, however its loop has; one that was killed may have been killed with its loop."""
        return self._code != 0

    @property
    def turned_away(self) -> bool:
        """Nobody here is told to come again later."""
        return False

    @property
    def hint(self) -> str:
        """What else there is to say of why it did not start."""
        return "".join(last_lines(self.log, 1))

    @property
    def deserted(self) -> str:
        """Nobody is met here again."""
        return ""

    def read(self, size: int) -> bytes:
        """What has come."""
        return os.read(self.stdout, size)

    def land(self, data: bytes) -> Landing:
        """It is where it is to be."""
        return Landing(rest=data)

    def kill(self) -> None:
        """End the child. A guard's end makes the kernel tell its loop, which takes every worker along."""
        self.wake()
        if not self._reaped:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wake(self) -> None:
        """Have it go on, should somebody have suspended it: a suspended agent obeys no order."""
        if not self._reaped:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGCONT)

    def _reap(self, deadline: float) -> int | None:
        # None: whoever embeds us has SIGCHLD ignored, and the kernel keeps no status.
        with suppress(ChildProcessError):
            while time.monotonic() < deadline:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    return status
                self.wake()
                time.sleep(0.002)
            self.kill()
            return os.waitpid(self.pid, 0)[1]
        return None

    def close(self) -> None:
        """Close both pipes; EOF tells the agent that nobody needs it any more."""
        if self._open:
            self._open = False
            os.close(self.stdin)
            os.close(self.stdout)

    def abandon(self) -> None:
        """There is nothing else."""

    @classmethod
    def start(cls, argv: list[str], log: Path) -> Self:
        """Start a program in a session of its own, so that the terminal's Ctrl-C reaches the launcher only.

        Raises:
            UnavailableError: it cannot be started.
        """
        to_child, stdin = os.pipe()
        stdout, from_child = os.pipe()
        widen(stdout)
        try:
            pid = spawn(argv, os.environ, to_child, from_child, open_log(log))
        except UnavailableError:
            os.close(stdin)
            os.close(stdout)
            raise
        return cls(pid, stdin, stdout, log)


def spawn(argv: list[str], env: Mapping[str, str], stdin: int, stdout: int, stderr: int) -> int:
    """Start a program in a session of its own with these descriptors, which are closed here. Returns its process id.

    Raises:
        UnavailableError: it cannot be started.
    """
    descriptors = (stdin, stdout, stderr)
    try:
        return start(Command(argv, None, env, ()), descriptors)
    except OSError as error:
        raise UnavailableError(f"cannot start {argv[0]}: {error.strerror}") from None
    finally:
        for descriptor in set(descriptors):
            os.close(descriptor)


def open_log(log: Path) -> int:
    """A descriptor that what is complained of goes to."""
    try:
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        # On a full disk the agent's complaints are the least of it.
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
