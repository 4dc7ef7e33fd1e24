"""This machine. The same agent, over the same wire, as any other host's: only its stdin and stdout are plain pipes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.agent import facts
from launcher.engines.child import Child
from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.config import HostSpec

# -I and -S: the agent needs none of the user's settings and packages, and starts in half the time without them. The
# folder goes last on sys.path, so that nothing installed beside us is taken for the standard library.
_START = "import sys; sys.path.append(sys.argv[1]); from launcher.agent.__main__ import main; main(sys.argv[2])"
_PACKAGES = str(Path(__file__).resolve().parents[2])


class LocalEngine:
    """Runs everything on this machine."""

    # A pipe tells at once when the other side is gone. Silence only means Ctrl-Z or a laptop that slept.
    silence = None

    def open(self, host: HostSpec, *, private: bool, log: Path, lease: float = 0.0, mooring: str = "") -> Child:
        """Start the agent as a child, whose pipes are lost with it alone."""
        del lease, mooring
        if host.address not in {"127.0.0.1", "localhost", "::1"}:
            raise UnavailableError(
                f'{host.address}: the engine "local" runs on this machine only',
                'leave "hosts" out, or name an engine that reaches other hosts',
            )
        options = json.dumps({"private": private, "silence": self.silence})
        return Child.start([sys.executable, "-I", "-S", "-c", _START, _PACKAGES, options], log)

    def meet_again(self, host: HostSpec, *, mooring: str, have: int, log: Path) -> None:
        """A pipe is not lost while both of its ends are there."""

    def peek(self, host: HostSpec) -> Mapping[str, Any] | None:
        """This machine is here to be looked at."""
        del host
        return facts.gather()
