"""This machine. The same agent, over the same wire, as any other host's: only its stdin and stdout are plain pipes."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.agent import facts
from launcher.agent.kernel import widen
from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.config import HostSpec

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
        """Reap the agent's guard."""
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        code = os.waitstatus_to_exitcode(status)
        # Its guard says 128 + signal when a signal ended the agent's loop, as a shell does.
        number = -code if code < 0 else code - 128
        return f"killed by {signal.Signals(number).name}" if number in _SIGNALS else f"it ended with status {code}"

    def kill(self) -> None:
        """SIGTERM: the guard's death makes the kernel tell the loop, which takes every worker along."""
        if not self._reaped:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

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
        stderr = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        wiring = [
            (os.POSIX_SPAWN_DUP2, source, target) for source, target in ((to_agent, 0), (from_agent, 1), (stderr, 2))
        ]
        try:
            pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=wiring, setsid=True)
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
