"""Engines: how to get an agent's stdin and stdout on a host. All else is the same for each of them.

An engine is loaded by name. Ours are found without looking around; third parties register theirs under the entry point
group ``tflaunch.engines``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from launcher.config import ClusterConfig, HostSpec
    from launcher.run_dir import RunDir

GROUP = "tflaunch.engines"


class Landing(NamedTuple):
    """What came of what a travelling agent said first.

    Attributes:
        answer: what to send to it, before anything else.
        rest: what is its own of what has come, once it is there; None until then.
        had: where it was there already: how much of what it was told had arrived; else None.
    """

    answer: bytes = b""
    rest: bytes | None = None
    had: int | None = None


class Berth(NamedTuple):
    """A place for an agent.

    Attributes:
        log: where what it prints besides its wire goes.
        mooring: what to call the socket where it is met again.
    """

    host: HostSpec
    log: Path
    mooring: str


class Channel(Protocol):
    """A started agent, or one that is on its way to its host.

    Attributes:
        stdin, stdout: descriptors of its wire, ours to close through ``close``. They may be others once it has landed.
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

    @property
    def deserted(self) -> str:
        """Why, where an agent was to be met again, there is none any more; empty while there may be."""

    def read(self, size: int) -> bytes | None:
        """What has come, now that ``stdout`` is readable; nothing at its end, None where that was not for us to read."""

    def land(self, data: bytes) -> Landing:
        """Take in what came before its first frame, where it has not ``landed``."""

    def wait(self) -> str:
        """Wait for what carries the agent here to end; says how it ended, in words. Call it once."""

    def kill(self) -> None:
        """End what carries the agent, at once."""

    def wake(self) -> None:
        """Have a suspended agent go on, where that is in our power."""

    def close(self) -> None:
        """Close the descriptors."""

    def abandon(self) -> None:
        """Nobody comes back to the agent, or it has been told to go: end what else has carried it. Call it last."""


class Engine(Protocol):
    """What the launcher asks of an engine.

    Attributes:
        silence: seconds without a word after which either side takes the other for lost; None where the kernel tells
            at once, and silence only means that one of them was suspended.
        at_once: how many agents may be on their way at a time.
    """

    silence: float | None
    at_once: int

    def open(self, berths: Sequence[Berth], *, private: bool, lease: float) -> Sequence[Channel]:
        """Start an agent in each of these berths.

        Args:
            lease: seconds that a connection may be lost for.

        Raises:
            UnavailableError: they cannot be started from here; none is.
        """

    def meet_again(self, berth: Berth, *, have: int) -> Channel | None:
        """Reach an agent whose connection was lost; None where there is no such thing.

        Args:
            have: how much of what it has said has arrived.
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
    "slurm": _Known("launcher.engines.slurm", "SlurmEngine"),
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


class Docks(NamedTuple):
    """How to get an agent on each host of a run, and how to meet it again."""

    engine: Engine
    config: ClusterConfig
    run_dir: RunDir

    @property
    def lease(self) -> float:
        """Seconds that a connection may be lost for; 0 where the engine has none that can."""
        return self.config.lease if self.engine.silence is not None else 0.0

    def open(self, addresses: Sequence[str]) -> dict[str, Channel]:
        """Start an agent on each of these hosts.

        Raises:
            UnavailableError: they cannot be started from here; none is.
        """
        berths = [self._berth(address) for address in addresses]
        channels = self.engine.open(berths, private=self.config.private, lease=self.lease)
        return dict(zip(addresses, channels, strict=True))

    def meet_again(self, address: str, have: int) -> Channel | None:
        """Reach an agent whose connection was lost. See ``Engine.meet_again``.

        Raises:
            UnavailableError: nobody can be reached from here.
        """
        return self.engine.meet_again(self._berth(address), have=have)

    def _berth(self, address: str) -> Berth:
        host = next(host for host in self.config.hosts if host.address == address)
        # Several "hosts" may be one. A socket's path has room for 107 bytes (unix(7)).
        mooring = f"{self.run_dir.path.name[-30:]}-{address.replace('/', '_')[-40:]}"
        return Berth(host._replace(python=host.python or self.config.python), self.run_dir.agent_log(address), mooring)
