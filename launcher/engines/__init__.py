"""Engines: how to get an agent's stdin and stdout on a host. All else is the same for each of them.

An engine is loaded by name. Ours are found without looking around; third parties register theirs under the entry point
group ``tflaunch.engines``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from launcher.config import ClusterConfig, HostSpec
    from launcher.run_dir import RunDir

GROUP = "tflaunch.engines"


class Channel(Protocol):
    """A started agent, or one that is on its way to its host.

    Attributes:
        stdin, stdout: descriptors of its wire, ours to close through ``close``.
        landed: it is there from the start, and all that comes is the agent's.
    """

    stdin: int
    stdout: int
    landed: bool

    @property
    def hint(self) -> str:
        """What to do about it, or what else there is to say, when it did not start; may be empty."""

    @property
    def stranded(self) -> bool:
        """Its end has left its host alone: it was killed, say, and somebody may have to tidy up after it."""

    @property
    def turned_away(self) -> bool:
        """It did not start because too many wanted to at once: another try may help."""

    def land(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take in what came before its first frame, where it has not ``landed``.

        Returns:
            What to answer; and what of ``data`` is the agent's, once it is there: None until then.
        """

    def wait(self) -> str:
        """Wait for what carries the agent here to end; says how it ended, in words. Call it once."""

    def kill(self) -> None:
        """End what carries the agent, at once."""

    def wake(self) -> None:
        """Have a suspended agent go on, where that is in our power."""

    def close(self) -> None:
        """Close the descriptors."""


class Engine(Protocol):
    """What the launcher asks of an engine.

    Attributes:
        silence: seconds without a word after which either side takes the other for lost; None where the kernel tells
            at once, and silence only means that one of them was suspended.
    """

    silence: float | None

    def open(self, host: HostSpec, *, private: bool, log: Path) -> Channel:
        """Start an agent on ``host``; what it prints besides its wire goes to ``log``.

        Raises:
            UnavailableError: it cannot be started there.
        """

    def peek(self, host: HostSpec) -> Mapping[str, Any] | None:
        """The facts of a host as far as they can be known without starting anything; None when they cannot."""


class _Known(NamedTuple):
    module: str
    attribute: str


# Found by name alone: reading every installed package's entry points takes longer than starting a worker.
_OURS = {
    "local": _Known("launcher.engines.local", "LocalEngine"),
    "ssh": _Known("launcher.engines.ssh", "SshEngine"),
}


def exists(name: str) -> bool:
    """Whether a request may name this engine."""
    return name in _OURS or name in names()


def names() -> list[str]:
    """The names of all engines: ours, and those that other packages registered."""
    return sorted({*_OURS, *_registered()})


def load(name: str) -> Engine:
    """The engine called ``name``.

    Raises:
        UnavailableError: there is none of that name; the message lists those there are.
    """
    import importlib

    if name in _OURS:
        engine: Engine = getattr(importlib.import_module(_OURS[name].module), _OURS[name].attribute)()
        return engine
    points = _registered()
    if name in points:
        loaded: Engine = points[name].load()()
        return loaded
    raise UnavailableError(f'there is no engine "{name}" here', f"installed: {', '.join(sorted({*_OURS, *points}))}")


def _registered() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def open_one(engine: Engine, config: ClusterConfig, address: str, run_dir: RunDir) -> Channel:
    """Start an agent on the host of this address.

    Raises:
        UnavailableError: it cannot be started there.
    """
    host = next(host for host in config.hosts if host.address == address)
    chosen = host._replace(python=host.python or config.python)
    return engine.open(chosen, private=config.private, log=run_dir.agent_log(address))


def open_first(engine: Engine, config: ClusterConfig, run_dir: RunDir) -> dict[str, Channel]:
    """Start the agent of the first host, so that it comes up while we import what handles it. Returns address -> channel.

    Raises:
        UnavailableError: it cannot be started.
    """
    first = config.hosts[0].address
    return {first: open_one(engine, config, first, run_dir)}
