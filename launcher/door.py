"""The door of a run that is alive: a socket in its directory, at which other programs ask, and are answered.

A visitor says one line, a JSON object such as ``{"do": "stacks"}``, and is told one line, another JSON object. Whatever it
does, or does not, it keeps nobody waiting: nothing here blocks.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from launcher import events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = "control.sock"
# As many may be there at a time; for one more, one that waits for nothing has to go, the one that came first.
_ROOM = 32
# No request is longer.
_LONGEST = 1 << 12
_PIECE = 1 << 16
_REQUESTS: Mapping[str, events.Event] = {"stacks": events.StacksAsked()}


class Door:
    """Listens in a run's directory. As a context manager it leaves nothing there.

    Raises:
        OSError: there can be no socket in this directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._visitors: list[_Visitor] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        try:
            with reachable(folder) as path:
                self._socket.bind(path)
            self._socket.listen()
        except OSError:
            self._socket.close()
            raise
        self._selector = selectors.EpollSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            (self._folder / FILE).unlink()
        for visitor in list(self._visitors):
            self._dismiss(visitor)
        self._selector.close()
        self._socket.close()

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to ``receive``."""
        return self._selector.fileno()

    def receive(self) -> Iterator[events.Event]:
        """Let in who knocks, hear who speaks; yields what they want."""
        for key, mask in self._selector.select(0):
            if key.data is None:
                self._admit()
            elif key.data in self._visitors:
                yield from self._attend(key.data, mask)

    def tell(self, wish: str, answer: Mapping[str, Any]) -> None:
        """Answer everybody who has asked for this."""
        line = memoryview(json.dumps(answer).encode() + b"\n")
        for visitor in [one for one in self._visitors if one.wish == wish]:
            visitor.wish, visitor.owed = None, line
            try:
                self._go_on(visitor)
            except OSError:
                self._dismiss(visitor)

    def _admit(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):  # gone again
            return
        except OSError:  # no descriptor is left: to be told for ever that somebody knocks would take a core
            self._selector.unregister(self._socket)
            return
        connection.setblocking(False)
        if len(self._visitors) == _ROOM:
            self._dismiss(min(self._visitors, key=lambda one: one.wish is not None))
        visitor = _Visitor(connection)
        self._visitors.append(visitor)
        self._selector.register(connection, selectors.EVENT_READ, visitor)

    def _attend(self, visitor: _Visitor, mask: int) -> Iterator[events.Event]:
        try:
            if mask & selectors.EVENT_WRITE:
                self._go_on(visitor)
            elif (line := visitor.hear()) is not None:
                # One request a visit; whether it still listens shows when it is answered.
                self._selector.unregister(visitor.connection)
                yield from self._consider(visitor, line)
        except OSError:
            self._dismiss(visitor)

    def _consider(self, visitor: _Visitor, line: bytes) -> Iterator[events.Event]:
        visitor.wish = _wish(line)
        if visitor.wish in _REQUESTS:
            yield _REQUESTS[visitor.wish]
        else:
            self.tell(visitor.wish, {"error": f"no such request; known: {', '.join(_REQUESTS)}"})

    def _go_on(self, visitor: _Visitor) -> None:
        if visitor.pay():
            self._dismiss(visitor)
        elif visitor.connection not in self._selector.get_map():
            self._selector.register(visitor.connection, selectors.EVENT_WRITE, visitor)

    def _dismiss(self, visitor: _Visitor) -> None:
        self._visitors.remove(visitor)
        if visitor.connection in self._selector.get_map():
            self._selector.unregister(visitor.connection)
        visitor.connection.close()


class _Visitor:
    """Somebody at the door.

    Attributes:
        wish: what it waits for; None when it has not said that, or has been told.
        owed: what is left of the answer.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.wish: str | None = None
        self.owed = memoryview(b"")
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
        return line if end else None

    def pay(self) -> bool:
        """Give it what it takes; whether that was all.

        Raises:
            OSError: it has left.
        """
        with suppress(BlockingIOError):
            while self.owed:
                self.owed = self.owed[self.connection.send(self.owed[:_PIECE]) :]
        return not self.owed


def ask(folder: Path, what: str, seconds: float) -> dict[str, Any]:
    """Ask the run that is alive in this directory.

    Raises:
        FileNotFoundError: it has no door.
        ConnectionError: it went away, now or before.
        TimeoutError: it did not answer within so many seconds.
    """
    import time

    until = time.monotonic() + seconds
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(seconds)
        try:
            with reachable(folder) as path:
                connection.connect(path)
        except BlockingIOError:  # there is a queue at the door
            raise TimeoutError from None
        connection.sendall(json.dumps({"do": what}).encode() + b"\n")
        answer = bytearray()
        while not answer.endswith(b"\n"):
            connection.settimeout(max(0.001, until - time.monotonic()))
            data = connection.recv(_PIECE)
            if not data:
                raise ConnectionResetError
            answer += data
    told: dict[str, Any] = json.loads(answer)
    return told


@contextmanager
def reachable(folder: Path) -> Iterator[str]:
    """The socket's path, in a form that is short enough for one (108 bytes), wherever the folder lies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{FILE}"
    finally:
        os.close(descriptor)


def _wish(line: bytes) -> str:
    with suppress(ValueError, RecursionError):
        match json.loads(line):
            case {"do": str(wish)}:
                return wish
    return ""
