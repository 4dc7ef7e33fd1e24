"""Where this host's tasks are reached: the ports leased for them, and the network of those with addresses of their own."""

from __future__ import annotations

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .ports import Lease
    from .switch import Switch


class Network:
    """All that is held for the tasks until ``release``; ``tell`` takes what the launcher is told of it."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._leases: list[Lease] = []
        self._switch: Switch | None = None

    def lease(self, count: int, ports: Sequence[int] | None, *, listen: bool) -> None:
        """Lease ports, of a range if one is given, and tell which; or why there are none.

        ``listen``: on all that are leased, until ``deafen``, so that others can try whether they reach them.
        """
        from .ports import lease

        try:
            leases = lease(count, None if ports is None else (ports[0], ports[1]))
            self._leases += leases
            for held in self._leases if listen else ():
                held.listen()
        except OSError as error:
            self._tell("fault", order="lease", errno=error.errno, error=error.strerror)
            return
        self._tell("leased", ports=[one.port for one in leases])

    def connect(self, count: int) -> None:
        """Make a network of so many addresses, and tell them; or why there is none."""
        from .switch import Switch

        self._switch = switch = Switch()
        try:
            self._tell("connected", addresses=switch.connect(count))
        except OSError as error:
            self._tell("fault", order="connect", errno=error.errno, error=error.strerror)

    def set_line(self, between: Sequence[str], *, up: bool) -> None:
        """Cut the line between two addresses of that network, or mend it; and tell."""
        if self._switch is not None:
            self._switch.set_line(between, up=up)
        self._tell("line", between=between, up=up)

    def of(self, address: str) -> int | None:
        """The network namespace of an address, as a descriptor; None: it is the host's."""
        return self._namespaces().get(address)

    def deafen(self) -> None:
        """Listen on none of the leased ports any more."""
        for held in self._leases:
            held.deafen()

    def tell_who_listens(self) -> None:
        """Tell on which of the leased ports somebody does, in whatever network."""
        from .ports import listening

        ports = {one.port for one in self._leases}
        found = set(listening(ports))
        for network in self._namespaces().values():
            with kernel.inside(network):
                found.update(listening(ports))
        self._tell("listening", ports=sorted(found))

    def release(self) -> None:
        """Give all of it back, and tell."""
        self.close()
        self._tell("released")

    def close(self) -> None:
        """Give all of it back."""
        for held in self._leases:
            held.close()
        self._leases.clear()
        if self._switch is not None:
            self._switch.close()

    def _namespaces(self) -> dict[str, int]:
        return {} if self._switch is None else self._switch.networks
