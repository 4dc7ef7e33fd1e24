"""tflaunch: one command turns ``-n 4`` or a list of hosts into a running, supervised TensorFlow cluster."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.api import Result, launch

__all__ = ["Result", "launch"]


def __getattr__(name: str) -> object:
    """Import the public functions when they are asked for: the agent and the command line start without them."""
    if name in __all__:
        from launcher import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
