"""The visitor's side of the door of a run that is alive (``door.py``)."""

from __future__ import annotations

import json
import socket
import struct
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from launcher.agent import wire
from launcher.door import reachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECE = 1 << 18


def ask(folder: Path, what: str, seconds: float, **more: object) -> dict[str, Any]:
    """Ask the run that is alive in this directory.

    Raises:
        FileNotFoundError: it has no door.
        ConnectionError: it went away, now or before.
        TimeoutError: it did not answer within so many seconds.
    """
    until = time.monotonic() + seconds
    with closing(_connected(folder, seconds)) as connection:
        connection.sendall(_line(what, **more))
        answer = bytearray()
        while not answer.endswith(b"\n"):
            connection.settimeout(max(0.001, until - time.monotonic()))
            data = connection.recv(_PIECE)
            if not data:
                raise ConnectionResetError
            answer += data
    told: dict[str, Any] = json.loads(answer)
    return told


def follow(folder: Path, seconds: float) -> socket.socket:
    """Stay with the run that is alive in this directory; ``frames`` are what comes.

    Raises:
        FileNotFoundError: it has no door.
        ConnectionError: it is gone.
        TimeoutError: nobody opens within so many seconds.
    """
    connection = _connected(folder, seconds)
    connection.sendall(_line("follow"))
    return connection


def introduce() -> tuple[socket.socket, socket.socket]:
    """Two ends of a line: who reads one follows the run to whose door the other is brought."""
    ours, theirs = socket.socketpair()
    ours.sendall(_line("follow"))
    return ours, theirs


def frames(connection: socket.socket) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """What comes until the launcher hangs up: a task's number and its output, or -1 and a message.

    Raises:
        TimeoutError: the first of it does not come within the connection's patience.
    """
    reader = wire.Reader()
    with suppress(ConnectionError):
        while data := connection.recv(_PIECE):
            connection.settimeout(None)
            for kind, task, payload in reader.feed(data):
                yield (task, payload) if kind == wire.OUTPUT else (-1, json.loads(payload))


def keeper(folder: Path) -> int | None:
    """The process that listens at the door, whether it answers or not; None when there is none."""
    with suppress(OSError), closing(_connected(folder, 0.1)) as connection:
        # Of whoever called listen (unix(7)): its process, user and group.
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        return int(pid)
    return None


def _connected(folder: Path, seconds: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(seconds)
    try:
        with reachable(folder) as path:
            connection.connect(path)
    except BaseException as error:
        connection.close()
        if isinstance(error, BlockingIOError):  # there is a queue at the door
            raise TimeoutError from None
        raise
    return connection


def _line(what: str, **more: object) -> bytes:
    return json.dumps({"do": what, **more}).encode() + b"\n"
