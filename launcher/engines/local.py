"""This machine. The same agent, over the same wire, as any other host's: only its stdin and stdout are plain pipes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.agent import facts
from launcher.agent.kernel import widen
from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.config import HostSpec

# What the agent relies on, whatever whoever started us had blocked or ignored.
_DEFAULTS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
# The guard gives the last descendants 5 s (agent/guard.py).
_PATIENCE = 8.0
_SIGNALS = frozenset(int(number) for number in signal.Signals)

# -I and -S: the agent needs none of the user's settings and packages, and starts in half the time without them. The
# folder goes last on sys.path, so that nothing installed beside us is taken for the standard library.
_START = "import sys; sys.path.append(sys.argv[1]); from launcher.agent.__main__ import main; main(sys.argv[2])"
_PACKAGES = str(Path(__file__).resolve().parents[2])


class LocalChannel:
    """An agent that is a child process."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self._open = True
        self._reaped = False

    def wait(self) -> str:
        """Reap the agent's guard; one that does not go by itself is suspended, and is killed."""
        status = self._reap(time.monotonic() + _PATIENCE)
        self._reaped = True
        if status is None:
            return "it ended"
        code = os.waitstatus_to_exitcode(status)
        # Its guard says 128 + signal when a signal ended the agent's loop, as a shell does.
        number = -code if code < 0 else code - 128
        if number == signal.SIGSTOP:
            return "stopped by a signal (SIGSTOP, or one like it), and did not go on"
        return f"killed by {signal.Signals(number).name}" if number in _SIGNALS else f"it ended with status {code}"

    def kill(self) -> None:
        """End the guard, which makes the kernel tell the loop, which takes every worker along."""
        self.wake()
        if not self._reaped:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wake(self) -> None:
        """Have guard and loop go on, should somebody have suspended them: a suspended agent obeys no order."""
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


class LocalEngine:
    """Runs everything on this machine."""

    # A pipe tells at once when the other side is gone. Silence only means Ctrl-Z or a laptop that slept.
    silence = None

    def open(self, host: HostSpec, *, private: bool, log: Path) -> LocalChannel:
        """Start the agent as a child in a session of its own, so that the terminal's Ctrl-C reaches the launcher only."""
        if host.address not in {"127.0.0.1", "localhost", "::1"}:
            raise UnavailableError(
                f'{host.address}: the engine "local" runs on this machine only',
                'leave "hosts" out, or name an engine that reaches other hosts',
            )
        options = json.dumps({"private": private, "silence": self.silence})
        argv = [sys.executable, "-I", "-S", "-c", _START, _PACKAGES, options]
        to_agent, stdin = os.pipe()
        stdout, from_agent = os.pipe()
        widen(stdout)
        stderr = _open_log(log)
        wiring = [
            (os.POSIX_SPAWN_DUP2, source, target) for source, target in ((to_agent, 0), (from_agent, 1), (stderr, 2))
        ]
        try:
            pid = os.posix_spawn(
                sys.executable, argv, os.environ, file_actions=wiring, setsid=True, setsigmask=[], setsigdef=_DEFAULTS
            )
        except OSError as error:
            os.close(stdin)
            os.close(stdout)
            raise UnavailableError(f"cannot start {sys.executable}: {error.strerror}") from None
        finally:
            for descriptor in (to_agent, from_agent, stderr):
                os.close(descriptor)
        return LocalChannel(pid, stdin, stdout)

    def peek(self, host: HostSpec) -> Mapping[str, Any] | None:
        """This machine is here to be looked at."""
        del host
        return facts.gather()


def _open_log(log: Path) -> int:
    try:
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        # On a full disk the agent's complaints are the least of it.
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
