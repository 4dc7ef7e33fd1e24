"""Whether other hosts' ports can be reached from here. A firewall does not say so: it is a connection that never comes.

A connection alone is not enough: where the packets of the way are smaller than those of its ends, and nobody is told, small ones
arrive and large ones vanish. So something large is sent, and the other kernel has to acknowledge it.
Sources: tcp(7); include/uapi/linux/tcp.h for the places in TCP_INFO; ip(7) and icmp(7) for what a refusal turns into.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    # An address as ``connect`` takes it, with its family.
    Place = tuple[int, tuple[object, ...]]

# More than any packet, less than the kernel buffers at either end.
_LOAD = bytes(12 << 10)
# So often is looked whether it was acknowledged: nobody tells.
_TICK = 0.002
# In TCP_INFO: the size of packets on the way, and the round trip in microseconds.
_MTU_AND_TRIP = struct.Struct("=60xI4xI")


def dial(places: Sequence[tuple[str, int]], seconds: float) -> list[dict[str, object]]:
    """Dial all of them at once. Returns for each, in order, what came of it within so many seconds.

    ``state`` is ``ok``, ``dropped`` (no answer), ``refused``, ``unreachable``, ``stuck`` (only small packets arrive) or
    ``unknown`` (the name); ``said`` is the system's word for it; ``trip`` in seconds and ``mtu`` are told of connections.
    """
    deadline = time.monotonic() + seconds
    known = _resolve({host for host, _ in places}, seconds)
    calls: list[list[_Call]] = []
    for host, port in places:
        found = known[host]
        calls.append([] if isinstance(found, str) else [_Call(family, place, port) for family, place in found])
    _wait([call for several in calls for call in several], deadline)
    return [
        _best(several) if several else {"state": "unknown", "said": known[host]}
        for several, (host, _) in zip(calls, places, strict=True)
    ]


class _Call:
    """One connection on its way."""

    def __init__(self, family: int, place: tuple[object, ...], port: int) -> None:
        self.state, self.said = "dropped", ""
        self.trip: float | None = None
        self.mtu: int | None = None
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # The end leaves no trace on either side: no TIME_WAIT at a port that a worker is about to have.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        number = self.socket.connect_ex((place[0], port, *place[2:]))
        if number != errno.EINPROGRESS:
            self.end(number)

    @property
    def over(self) -> bool:
        return self.socket.fileno() == -1

    def answered(self) -> None:
        """The attempt to connect is over, well or not."""
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.end(number)
            return
        self.state = "stuck"
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MTU_AND_TRIP.size)
        self.mtu, microseconds = _MTU_AND_TRIP.unpack(info)
        self.trip = microseconds / 1e6
        try:
            self.socket.send(_LOAD)
        except OSError as error:
            self.end(error.errno)

    def look(self) -> None:
        """See whether all that was sent has been acknowledged."""
        import fcntl
        import termios

        (left,) = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number or not left:
            self.end(number)

    def end(self, number: int | None) -> None:
        """What came of it: nothing but good, or an error of the system's."""
        self.said = os.strerror(number) if number else ""
        match number:
            case 0:
                self.state = "ok"
            case errno.ECONNREFUSED | errno.ECONNRESET:
                self.state = "refused"
            case errno.ETIMEDOUT:
                self.state = "dropped"
            case _:
                self.state = "unreachable"
        self.socket.close()


def _wait(calls: Sequence[_Call], deadline: float) -> None:
    selector = selectors.DefaultSelector()
    for call in calls:
        if not call.over:
            selector.register(call.socket, selectors.EVENT_WRITE, call)
    sent: list[_Call] = []
    while (selector.get_map() or sent) and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(_TICK if sent else left):
            selector.unregister(key.fileobj)
            key.data.answered()
            sent.append(key.data)
        for call in sent:
            if not call.over:
                call.look()
        sent = [call for call in sent if not call.over]
    for call in calls:
        call.socket.close()


def _best(calls: Iterable[_Call]) -> dict[str, object]:
    """Of all addresses of a name, TensorFlow takes the one that answers."""
    order = ("ok", "stuck", "dropped", "refused", "unreachable")
    best = min(calls, key=lambda call: order.index(call.state))
    return {"state": best.state, "said": best.said, "trip": best.trip, "mtu": best.mtu}


def _resolve(names: Iterable[str], seconds: float) -> dict[str, list[Place] | str]:
    """The addresses of each name, or why there is none."""
    found: dict[str, list[Place] | str] = {}
    unknown = []
    for name in names:
        try:
            found[name] = _addresses(name, socket.AI_NUMERICHOST)
        except OSError:
            unknown.append(name)
    return {**found, **_ask(unknown, seconds)} if unknown else found


def _ask(names: Sequence[str], seconds: float) -> dict[str, list[Place] | str]:
    """All at the same time: one that a silent name server is asked for must not take the time of the others."""
    from threading import Thread

    found: dict[str, list[Place] | str] = dict.fromkeys(names, "the name server does not answer")

    def ask(name: str) -> None:
        try:
            found[name] = _addresses(name, 0)
        except OSError as error:
            found[name] = error.strerror or str(error)

    threads = [Thread(target=ask, args=(name,), daemon=True) for name in names]
    deadline = time.monotonic() + seconds / 2
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return found


def _addresses(name: str, flags: int) -> list[Place]:
    found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM, flags=flags)
    return [(family, place) for family, _, _, _, place in found]
