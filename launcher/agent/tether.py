"""The agent's end of the connection to its launcher: where an engine gives it a lease, it can be cut and mended.

While it is cut, what there is to say goes to this host's disk. Whoever reaches the host again hands over new descriptors through a
socket (``landing.py``), and says how much of what was sent before has arrived: all after that is sent again, so that nothing is
lost and nothing comes twice. A connection that was lost and a launcher that is gone look the same on the wire; what tells them
apart is whether the process that holds the session still lives. Source: unix(7) for descriptors over a socket.
"""

from __future__ import annotations

import json
import os
import selectors
import time
from contextlib import suppress

from . import kernel, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .backlog import Backlog

# What is held for a slow launcher before the workers have to wait for it, and until they need not any longer: as much as may be
# on its way through a network. At the other end of a pipe there is no use in holding more than that does.
HIGH, LOW = 8 << 20, 2 << 20
_PIPE = 1 << 20
# Between two such, the other side is told how much has come.
_NEWS = 1 << 20
# What an agent that is to make room gets for that; the guard gives the last of its descendants 5 s (guard.py).
_PATIENCE = 8.0
# sshd ends when it loses its client, and closes the pipes a little before that, or by that.
_MOMENT = 1.0


class Tether:
    """Frames both ways.

    Args:
        mooring: the path of the socket.
        lease: seconds that the launcher may be gone for; 0: its end of the wire is its end.
        take: is given each frame that comes.

    Attributes:
        gone: nobody will come back, or not in time.
        heard: when the last bytes came (monotonic).
        adrift: since when nobody has been there (monotonic); None while somebody is.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        mooring: str,
        lease: float,
        take: Callable[[int, int, bytes], None],
    ) -> None:
        self.gone = False
        self.heard = time.monotonic()
        self.adrift: float | None = None
        self._selector = selector
        self._lease = lease
        self._take = take
        self._reader = wire.Reader()
        self._writer = _Writer(1, keep=lease > 0)
        self._came = self._told = 0
        self._closed: float | None = None
        self._session: int | None = None
        self._caller: socket.socket | None = None
        self._socket = _listen(mooring) if lease else None
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)
        selector.register(0, selectors.EVENT_READ, self._on_launcher)
        if self._socket is not None:
            selector.register(self._socket, selectors.EVENT_READ, self._on_caller)
            self._follow_session(os.getppid())

    def tell(self, what: str, **fields: object) -> None:
        """Queue a control frame."""
        self._writer.control({"do": what, **fields})

    def output(self, task: int, data: bytes) -> None:
        """Queue what a task has written."""
        self._writer.output(task, data)

    def worth_passing_on(self, pipe: int) -> int:
        """How much of what a pipe holds is to be passed on, as soon as nothing is queued before it.

        0: it is to be read, and queued, as it is little or may have to be sent again.
        """
        if self._lease or not kernel.CAN_SPLICE:
            return 0
        count = min(kernel.held_by(pipe), wire.CHUNK)
        return count if count >= wire.LONG else 0

    def pass_on(self, task: int, pipe: int, count: int) -> bool:
        """Send so much of what a task has written, and nothing is queued; False where there is no room for it now."""
        count = min(count, kernel.room_in(1))
        if count < wire.LONG:
            return False
        try:
            self._writer.relay(task, pipe, count)
        except BrokenPipeError:
            self._on_end()
        return True

    def file(self, number: int, data: bytes) -> None:
        """Queue a piece of a file."""
        self._writer.file(number, data)

    def beat(self) -> None:
        """Tell that we live, and how much has come."""
        self._told = self._came
        self.tell("ping", clock=time.time(), have=self._came)

    @property
    def full(self) -> bool:
        """So much waits that whoever has more to say should wait, too."""
        aside = self._writer.aside
        return self._writer.held > (HIGH if self._lease else _PIPE) if aside is None else aside.full

    @property
    def relieved(self) -> bool:
        """Whoever has waited need not any longer."""
        aside = self._writer.aside
        return self._writer.held < (LOW if self._lease else 1) if aside is None else not aside.full

    @property
    def idle(self) -> bool:
        """There is time for what is not urgent."""
        return self._writer.aside is None and self._writer.held < LOW

    @property
    def next(self) -> float | None:
        """When to call ``on_time`` (monotonic)."""
        moments = [
            at for at in (self._closed and self._closed + _MOMENT, self.adrift and self.adrift + self._lease) if at
        ]
        return min(moments, default=None)

    def on_time(self) -> None:
        """Draw the conclusions of what has not happened."""
        now = time.monotonic()
        if self._closed is not None and now >= self._closed + _MOMENT:
            self.gone = True
        if self.adrift is not None and now >= self.adrift + self._lease:
            self.gone = True

    def lose(self) -> None:
        """The other side is not there any more; that is the end, or the beginning of the lease."""
        if not self._lease:
            self.gone = True
        elif self.adrift is None:
            self.adrift, self._closed = time.monotonic(), None
            self._writer.set_aside()
            self._let_go()

    def flush(self) -> None:
        """Send what is queued."""
        if self.adrift is not None or self._closed is not None:
            return
        try:
            self._writer.flush()
        except BrokenPipeError:
            self._on_end()
            return
        waiting = self._writer.pending > 0
        if waiting != (1 in self._selector.get_map()):
            if waiting:
                self._selector.register(1, selectors.EVENT_WRITE, lambda _: None)
            else:
                self._selector.unregister(1)

    def close(self) -> None:
        """Say the last words, and leave nothing behind."""
        with suppress(BrokenPipeError):
            self._writer.flush()
        if self._socket is not None:
            with suppress(OSError):
                os.unlink(self._socket.getsockname())
            self._socket.close()

    def _on_launcher(self, descriptor: int) -> None:
        if self.adrift is not None:
            return  # it was readable in the same moment in which the session ended
        try:
            data = os.read(descriptor, wire.CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a connection may be reset (tcp(7))
        self.heard = time.monotonic()
        if not data:
            self._on_end()
            return
        self._came += len(data)
        for kind, number, payload in self._reader.feed(data):
            if kind == wire.CONTROL and payload.startswith(b'{"do":"ping"'):
                self._writer.acknowledge(json.loads(payload).get("have", 0))
            else:
                self._take(kind, number, payload)
        if self._lease and self._came - self._told > _NEWS:
            self.beat()

    def _on_end(self) -> None:
        """The other side does not write, or not read, any more; whether its session has ended, too, shows in a moment."""
        self._closed = time.monotonic()
        self.gone = not self._lease
        self._unregister(0, 1)

    def _follow_session(self, pid: int) -> None:
        self._forget_session()
        with suppress(OSError):  # an old kernel, or it has ended already: the launcher will be taken for gone
            self._session = kernel.session_of(pid)
            self._selector.register(self._session, selectors.EVENT_READ, lambda _: self.lose())

    def _forget_session(self) -> None:
        if self._session is not None:
            self._unregister(self._session)
            os.close(self._session)
            self._session = None

    def _unregister(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            if descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)

    def _on_caller(self, _: int) -> None:
        """Somebody comes from the launcher, and brings a connection."""
        from socket import recv_fds

        assert self._socket is not None  # noqa: S101 - it is what has become readable
        caller = self._socket.accept()[0]
        caller.settimeout(1.0)
        message = b""
        descriptors: list[int] = []
        with suppress(OSError):
            message, descriptors, _, _ = recv_fds(caller, 4096, 3)
        match _understood(message), descriptors:
            case {"have": int(have)}, [_, _, _]:
                self._moor(descriptors, have)
                self._follow_session(_process_behind(caller))
                # Its process keeps the ssh session; it ends when we do, or when we are adrift again.
                self._caller = caller
            case {"leave": True}, []:
                # Whoever says so waits for the end of this process, which closes this.
                self.gone, self._caller = True, caller
            case _:
                caller.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def _moor(self, descriptors: list[int], have: int) -> None:
        self._let_go()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)
        # A new pipe takes as much at once.
        os.write(1, wire.MARK + b"=" + self._came.to_bytes(8, "big"))
        self._writer.rewind(have)
        self.adrift = self._closed = None
        self.heard = time.monotonic()
        self._selector.register(0, selectors.EVENT_READ, self._on_launcher)

    def _let_go(self) -> None:
        self._forget_session()
        self._unregister(0, 1)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        if self._caller is not None:
            self._caller.close()
            self._caller = None


class _Writer(wire.Writer):
    """Writes to a backlog what comes while there is nobody to write to.

    Attributes:
        aside: the backlog, until all of it is in the queue.
    """

    aside: Backlog | None = None

    def set_aside(self) -> None:
        """From now on, and until all of it has been sent."""
        # Both imports take longer than most agents take to start, which need neither.
        from .backlog import Backlog

        if self.aside is None:
            self.aside = Backlog()

    def flush(self) -> None:
        """Write what the descriptor takes now, the backlog after what was there before it."""
        super().flush()
        while self.aside is not None and self.held < LOW:
            if piece := self.aside.take():
                super()._add(piece)
                super().flush()
            else:
                self.aside.close()
                self.aside = None

    def _add(self, data: bytes) -> None:
        if self.aside is not None:
            self.aside.put(data)
        else:
            super()._add(data)


def _listen(path: str) -> socket.socket:
    """A socket that only this user reaches.

    Raises:
        OSError: there can be none.
    """
    import socket

    _take_over(path)
    with suppress(FileNotFoundError):
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen()
    made.setblocking(False)
    return made


def _take_over(path: str) -> None:
    """Have an agent of the same run, which its launcher has given up, make room: what it holds may be needed."""
    import socket

    with suppress(OSError), socket.socket(socket.AF_UNIX) as other:
        other.settimeout(_PATIENCE)
        other.connect(path)
        other.send(b'{"leave":true}')
        other.recv(1)


def _understood(message: bytes) -> object:
    with suppress(ValueError):
        return json.loads(message)
    return None


def _process_behind(connection: socket.socket) -> int:
    """The process at the other end of a Unix socket."""
    import socket
    import struct

    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
