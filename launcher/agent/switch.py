"""A network for the tasks of one host: each has an address of its own, and the line between two of them can be cut.

Each task has a network namespace, and a router, in another one, joins them. Nothing of it has a name outside: it goes when the
agent and the tasks are gone, whatever ended them. Sources: ip-link(8), ip-rule(8), veth(4), network_namespaces(7).
"""

from __future__ import annotations

import errno
import os

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_GATEWAY = "10.77.255.254"
# Where ``ip`` is, for users who have no such folder on their PATH.
_SBIN = "/usr/sbin:/sbin"


class Switch:
    """The network, once tasks are connected.

    Attributes:
        networks: the namespace of each address, as a descriptor.
    """

    def __init__(self) -> None:
        self.networks: dict[str, int] = {}
        self._router: int | None = None
        self._cut: set[frozenset[str]] = set()

    def connect(self, count: int) -> list[str]:
        """Make the network. Returns as many addresses, each of which can be reached from each.

        Raises:
            OSError: the kernel, or its settings, do not allow it, or there is no program ``ip``.
        """
        try:
            self._connect(count)
        except OSError:
            self.close()
            raise
        return list(self.networks)

    def _connect(self, count: int) -> None:
        self._router = router = kernel.new_network()
        kernel.keep_network_rights()
        # This rule matches nothing: it shows whether lines can be cut here, before anybody relies on it.
        links = [f"rule add from {_GATEWAY} to {_GATEWAY} blackhole"]
        for number in range(1, count + 1):
            address, device = f"10.77.{number >> 8}.{number & 255}", f"v{number}"
            self.networks[address] = network = kernel.new_network()
            _ip(
                network,
                f"link add eth0 type veth peer name {device} netns /proc/self/fd/{router}",
                f"address add {address} dev eth0",
                "link set eth0 up",
                f"route add default via {_GATEWAY} dev eth0 onlink",
                passing=router,
            )
            links += [
                f"address add {_GATEWAY} dev {device}",
                f"link set {device} up",
                f"route add {address} dev {device}",
            ]
        _ip(router, *links)
        with kernel.inside(router), open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")

    def set_line(self, between: Sequence[str], *, up: bool) -> None:
        """Cut the line between two addresses, or mend it. What is sent over one that is cut is lost, and nobody is told."""
        one, other = between
        pair = frozenset(between)
        if self._router is not None and up == (pair in self._cut):
            verb = "delete" if up else "add"
            _ip(self._router, *(f"rule {verb} from {a} to {b} blackhole" for a, b in ((one, other), (other, one))))
            self._cut ^= {pair}

    def close(self) -> None:
        """Let go of it; it is gone when the tasks are."""
        for network in (*self.networks.values(), *filter(None, [self._router])):
            os.close(network)
        self.networks.clear()
        self._cut.clear()
        self._router = None


def _ip(network: int, *commands: str, passing: int | None = None) -> None:
    """Run ``ip`` in a network namespace, with one more descriptor, if there is one to pass."""
    import subprocess

    env = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_SBIN}", "LC_ALL": "C"}
    descriptors = [] if passing is None else [passing]
    try:
        with kernel.inside(network):
            done = subprocess.run(
                ["ip", "-batch", "-"],
                input="\n".join(commands),
                text=True,
                capture_output=True,
                check=False,
                env=env,
                pass_fds=descriptors,
            )
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "it takes the program ip, of iproute2") from None
    if done.returncode:
        raise OSError(errno.EPERM, f"ip: {done.stderr.strip().splitlines()[0]}")
