"""Port leases: a port that is ours from planning until the worker ends, on the host that will use it.

A port that is picked and released can be taken before TensorFlow binds it. So the agent keeps it bound. The bind itself
is exclusive, which the kernel arbitrates between any number of launchers; only then is SO_REUSEPORT switched on, which
lets a second socket of the same user join, and a worker with ``TF_GRPC_REUSE_PORT=1`` is one. Ordinary binds by other
processes stay refused, with SO_REUSEADDR too (measured, Linux 6.18, IPv4 and IPv6). The lease does not listen while
there is a worker, so it takes no connection away from it.
"""

from __future__ import annotations

# What socket is made of, without its enums: they take 2 ms to import.
import _socket as socket
import errno
import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

# As /proc/net/tcp has it (include/net/tcp_states.h).
_LISTEN = b"0A"
# As many may be connected and not yet accepted; the system has a limit of its own (listen(2)).
_CALLERS = 4096


class Lease:
    """One port, held until ``close``."""

    def __init__(self, holder: socket.socket, *, from_server: bool) -> None:
        self._holder = holder
        self._ear: socket.socket | None = None
        self._from_server = from_server
        self.port: int = holder.getsockname()[1]

    def listen(self) -> None:
        """Let others try whether they reach it, until ``deafen``: the kernel takes their connections, and nobody answers.

        Raises:
            OSError: it cannot be listened on.
        """
        if self._ear is not None:
            return
        try:
            self._ear = _wildcard()
            self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._ear.bind(("", self.port))
            self._ear.listen(_CALLERS)
        except OSError as error:
            self.deafen()
            raise OSError(error.errno, f"port {self.port}: {error.strerror}") from None

    def deafen(self) -> None:
        """Leave the port to the worker again."""
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def close(self) -> None:
        """Give the port back, to the port server as well where it came from one."""
        self.deafen()
        self._holder.close()
        if self._from_server and (picker := _portpicker()) is not None:
            picker.return_port(self.port)


def lease(count: int, ports: tuple[int, int] | None) -> list[Lease]:
    """Lease ``count`` ports of an inclusive range, or whichever are free.

    A port server is honoured: where ``PORTSERVER_ADDRESS`` is set (portpicker's own variable) and portpicker is
    installed, it picks. Without a server its pick would be a random port that is free at the moment; the kernel's
    choice, bound in the same call, is better.

    Raises:
        OSError: EADDRINUSE when fewer than ``count`` are free, EACCES when the range needs a privilege.
    """
    leases: list[Lease] = []
    try:
        if ports is None:
            leases.extend(_lease_any() for _ in range(count))
        else:
            leases.extend(_lease_from(range(ports[0], ports[1] + 1), count))
    except OSError:
        for held in leases:
            held.close()
        raise
    return leases


def listening(ports: set[int]) -> list[int]:
    """Those of the ports that somebody listens on. Empty where /proc does not tell; it never is the leases themselves."""
    found = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/net/{name}", "rb") as file:
            next(file)
            for line in file:
                _, local, _, state, *_ = line.split()
                if state == _LISTEN:
                    found.add(int(local.rpartition(b":")[2], 16))
    return sorted(found & ports)


def _lease_any() -> Lease:
    if "PORTSERVER_ADDRESS" in os.environ and (picker := _portpicker()) is not None:
        try:
            return Lease(_hold(picker.pick_unused_port()), from_server=True)
        except picker.NoFreePortFoundError as error:
            raise OSError(errno.EADDRINUSE, "the port server has none to give") from error
    return Lease(_hold(0), from_server=False)


def _lease_from(candidates: range, count: int) -> Iterator[Lease]:
    found = 0
    for port in candidates:
        if found == count:
            return
        with suppress(_Busy):
            yield Lease(_hold(port), from_server=False)
            found += 1
    if found < count:
        raise OSError(
            errno.EADDRINUSE, f"{found} of the {count} ports needed are free in {candidates[0]}-{candidates[-1]}"
        )


class _Busy(OSError):
    pass


def _hold(port: int) -> socket.socket:
    holder = _wildcard()
    try:
        holder.bind(("", port))
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise _Busy(error.errno, f"port {port} is in use") from None
        raise OSError(error.errno, f"port {port}: {error.strerror}") from None
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return holder


def _wildcard() -> socket.socket:
    # TensorFlow's gRPC server binds [::] for both families; where there is no IPv6 it binds 0.0.0.0.
    try:
        holder = socket.socket(socket.AF_INET6)
    except OSError:
        return socket.socket(socket.AF_INET)
    holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return holder


def _portpicker() -> ModuleType | None:
    """The portpicker module, or None where it is not installed."""
    # The agent starts with -S, so that a host's .pth files cannot slow it down; this is the one thing it misses.
    import site

    site.main()
    try:
        import portpicker
    except ImportError:
        return None
    module: ModuleType = portpicker
    return module
