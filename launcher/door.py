"""The door of a run that is alive: a socket in its directory, at which other programs ask, and are answered.

A visitor says one line, a JSON object such as ``{"do": "stacks"}``, and is told one line, another JSON object; or it may stay,
and is given frames (``agent/wire.py``) as they come. Whatever it does, or does not, it keeps nobody waiting: nothing here
blocks. ``visit.py`` is the other side.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
from collections import deque
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.agent import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from launcher import events

    Request = Callable[[Mapping[str, Any]], Iterable[events.Event]]

FILE = "control.sock"
# As many may be there at a time; for one more, one that waits for nothing has to go, the one that came first.
_ROOM = 32
# No request is longer.
_LONGEST = 1 << 12
# To one that stays: what it does not take in time is skipped, and counted.
_BACKLOG = 8 << 20
_BATCH = 64


class Door:
    """Lets visitors in. As a context manager it leaves nothing behind.

    Args:
        requests: what may be asked for, and what is done then; it yields what the run has to know, or answers by ``tell``
            or ``keep``.
    """

    def __init__(self, requests: Mapping[str, Request]) -> None:
        self._requests = requests
        self._folder: Path | None = None
        self._visitors: list[_Visitor] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._selector = selectors.EpollSelector()

    def listen(self, folder: Path) -> None:
        """Be found in a run's directory.

        Raises:
            OSError: there can be no socket in this directory.
        """
        with reachable(folder) as path:
            # Of a launcher that was killed; the directory is locked, so there is no other.
            Path(path).unlink(missing_ok=True)
            # Before the bind: between it and a chmod somebody could come in.
            os.fchmod(self._socket.fileno(), stat.S_IRUSR | stat.S_IWUSR)
            self._socket.bind(path)
        self._folder = folder
        self._socket.listen()
        self._selector.register(self._socket, selectors.EVENT_READ)

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / FILE).unlink()
        for visitor in list(self._visitors):
            self._dismiss(visitor)
        self._selector.close()
        self._socket.close()

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to ``receive``."""
        return self._selector.fileno()

    @property
    def owes(self) -> bool:
        """Somebody has not been given all yet."""
        return any(visitor.owed for visitor in self._visitors)

    def receive(self, seconds: float = 0) -> Iterator[events.Event]:
        """Let in who knocks, hear who speaks, give who reads; yields what they want."""
        for key, mask in self._selector.select(seconds):
            if key.data is None:
                self._open()
            elif key.data in self._visitors:
                yield from self._attend(key.data, mask)

    def admit(self, connection: socket.socket) -> None:
        """Let in somebody who has not come by the socket."""
        connection.setblocking(False)
        if len(self._visitors) == _ROOM:
            self._dismiss(min(self._visitors, key=lambda one: one.wish is not None))
        visitor = _Visitor(connection)
        self._visitors.append(visitor)
        self._watch(visitor)

    def tell(self, wish: str, answer: Mapping[str, Any]) -> None:
        """Answer everybody who has asked for this."""
        line = json.dumps(answer).encode() + b"\n"
        for visitor in self._waiting_for(wish):
            visitor.wish = None
            self._give(visitor, line)

    def keep(self, wish: str, *first: bytes) -> None:
        """Have everybody who has asked for this stay; these frames come first."""
        for visitor in self._waiting_for(wish):
            visitor.stays = True
            self._give(visitor, *first)

    def pour(self, *pieces: bytes, spare: bool = False) -> None:
        """Give a frame to everybody who stays; one that may be ``spare``d is skipped for those who do not keep up."""
        for visitor in [one for one in self._visitors if one.stays]:
            if spare and visitor.pending > _BACKLOG:
                visitor.skipped += sum(map(len, pieces))
            else:
                self._give(visitor, *pieces)

    def _waiting_for(self, wish: str) -> list[_Visitor]:
        return [one for one in self._visitors if one.wish == wish and not one.stays]

    def _give(self, visitor: _Visitor, *pieces: bytes) -> None:
        behind = bool(visitor.owed)
        visitor.owe(*pieces)
        if not behind:
            try:
                self._go_on(visitor)
            except OSError:
                self._dismiss(visitor)

    def _open(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):  # gone again
            return
        except OSError:  # no descriptor is left: to be told for ever that somebody knocks would take a core
            self._selector.unregister(self._socket)
            return
        self.admit(connection)

    def _attend(self, visitor: _Visitor, mask: int) -> Iterator[events.Event]:
        try:
            if visitor.stays and mask & selectors.EVENT_READ and not visitor.connection.recv(_LONGEST):
                self._dismiss(visitor)
            elif mask & selectors.EVENT_WRITE:
                self._go_on(visitor)
            elif not visitor.stays and (line := visitor.hear()) is not None:
                # One request a visit; whether it still listens shows when it is answered.
                self._watch(visitor)
                yield from self._consider(visitor, line)
        except OSError:
            self._dismiss(visitor)

    def _consider(self, visitor: _Visitor, line: bytes) -> Iterator[events.Event]:
        request = _understood(line)
        visitor.wish = str(request.get("do"))
        if visitor.wish in self._requests:
            yield from self._requests[visitor.wish](request)
        else:
            self.tell(visitor.wish, {"error": f"no such request; known: {', '.join(self._requests)}"})

    def _go_on(self, visitor: _Visitor) -> None:
        if visitor.pay() and not visitor.stays:
            self._dismiss(visitor)
        else:
            self._watch(visitor)

    def _watch(self, visitor: _Visitor) -> None:
        reading = selectors.EVENT_READ if visitor.stays or not visitor.asked else 0
        mask = reading | (selectors.EVENT_WRITE if visitor.owed else 0)
        known = visitor.connection in self._selector.get_map()
        if known and not mask:
            self._selector.unregister(visitor.connection)
        elif known:
            self._selector.modify(visitor.connection, mask, visitor)
        elif mask:
            self._selector.register(visitor.connection, mask, visitor)

    def _dismiss(self, visitor: _Visitor) -> None:
        self._visitors.remove(visitor)
        if self._folder is not None and self._socket not in self._selector.get_map():
            self._selector.register(self._socket, selectors.EVENT_READ)  # there is a descriptor again
        if visitor.connection in self._selector.get_map():
            self._selector.unregister(visitor.connection)
        visitor.connection.close()


class _Visitor:
    """Somebody at the door.

    Attributes:
        wish: what it waits for; None when it has not said that, or has been told.
        asked: it has said its line.
        stays: it is given frame after frame, until either side leaves.
        owed: what it has not taken yet, ``pending`` bytes of it.
        skipped: bytes that it did not keep up with.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.wish: str | None = None
        self.asked = False
        self.stays = False
        self.owed: deque[memoryview] = deque()
        self.pending = 0
        self.skipped = 0
        self._said = b""

    def hear(self) -> bytes | None:
        """Take in what it says; its line, once that is whole.

        Raises:
            OSError: it has left, or does not come to an end.
        """
        data = self.connection.recv(_LONGEST)
        self._said += data
        line, end, _ = self._said.partition(b"\n")
        if not end and (not data or len(self._said) > _LONGEST):
            raise ConnectionAbortedError
        self.asked = bool(end)
        return line if end else None

    def owe(self, *pieces: bytes) -> None:
        """Have it be given these, after what it is owed."""
        if self.skipped:
            skipped, self.skipped = self.skipped, 0
            self.owe(wire.control({"do": "skipped", "bytes": skipped}))
        self.owed.extend(memoryview(piece) for piece in pieces if piece)
        self.pending += sum(map(len, pieces))

    def pay(self) -> bool:
        """Give it what it takes; whether that was all.

        Raises:
            OSError: it has left.
        """
        with suppress(BlockingIOError):
            while self.owed:
                self._forget(self.connection.sendmsg(list(islice(self.owed, _BATCH))))
        return not self.owed

    def _forget(self, sent: int) -> None:
        self.pending -= sent
        while sent:
            head = self.owed.popleft()
            if sent < len(head):
                self.owed.appendleft(head[sent:])
            sent -= min(sent, len(head))


@contextmanager
def reachable(folder: Path) -> Iterator[str]:
    """The socket's path, in a form that is short enough for one (108 bytes), wherever the folder lies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{FILE}"
    finally:
        os.close(descriptor)


def _understood(line: bytes) -> Mapping[str, Any]:
    with suppress(ValueError, RecursionError):
        request = json.loads(line)
        if isinstance(request, dict) and isinstance(request.get("do"), str):
            return request
    return {"do": ""}
