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
    from collections.abc import Mapping, Sequence

    from launcher.config import HostSpec
    from launcher.engines import Berth

# -I and -S: the agent needs none of the user's settings and packages, and starts in half the time without them. The
# folder goes last on sys.path, so that nothing installed beside us is taken for the standard library.
_START = "import gc, sys; gc.disable(); sys.path.append(sys.argv[1]); from launcher.agent.__main__ import main; main(sys.argv[2])"
_PACKAGES = str(Path(__file__).resolve().parents[2])


class LocalEngine:
    """Runs everything on this machine."""

    # A pipe tells at once when the other side is gone. Silence only means Ctrl-Z or a laptop that slept.
    silence = None
    at_once = 1

    def open(self, berths: Sequence[Berth], *, private: bool, lease: float = 0.0) -> list[Child]:
        """Start the agent as a child, whose pipes are lost with it alone."""
        del lease
        if away := [berth.host.address for berth in berths if not berth.host.is_this_machine]:
            raise UnavailableError(
                f'{away[0]}: the engine "local" runs on this machine only',
                'leave "hosts" out, or name an engine that reaches other hosts',
            )
        options = json.dumps({"private": private, "silence": self.silence})
        argv = [sys.executable, "-I", "-S", "-c", _START, _PACKAGES, options]
        return [Child.start(argv, berth.log) for berth in berths]

    def meet_again(self, berth: Berth, *, have: int) -> None:
        """A pipe is not lost while both of its ends are there."""

    def peek(self, host: HostSpec) -> Mapping[str, Any] | None:
        """This machine is here to be looked at."""
        del host
        return facts.gather()
