"""The frames that launcher and agent exchange, both ways.

A frame is a 9-byte header (kind, task number, payload length; big endian) and its payload. Control frames carry one
JSON object; output frames carry a worker's bytes as they came, so that nothing is decoded on the way. File frames carry a
piece of a file's content, with the file's number in the place of the task's.

Launcher to agent: ``sweep tree lease connect line release share spawn stop kill signal stacks listening ask fetch ping bye``. Agent to
launcher: ``hello lacking placed leased connected line released started report signalled stopped resumed stacks called listening
answer exited found ping fault``. The first frame from the agent is ``hello``, with the protocol's version and the facts of its host.
"""

from __future__ import annotations

import json
import os
import struct
from collections import deque
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROTOCOL = 1
# Where an agent has to come to its host first, this comes before its first frame (landing.py, which is alone then, has its own).
MARK = b"\0tflaunch\0"

CONTROL = 0
OUTPUT = 1
FILE = 2

HEADER = struct.Struct(">BII")
# A frame longer than this is not ours: somebody's shell profile printed into the stream, or memory is corrupt.
LONGEST = 64 << 20
# One read from a pipe, one output frame: large enough that 200 MB is a thousand frames, not a million.
CHUNK = 1 << 18
# Output that lies there in such pieces comes without a pause, and is much.
LONG = 1 << 16


class WireError(Exception):
    """The bytes on the wire are not frames of ours."""


def control(message: Mapping[str, object]) -> bytes:
    """One control frame."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    return HEADER.pack(CONTROL, 0, len(payload)) + payload


class Reader:
    """Cuts a byte stream into frames. Feed it what a read returned; it keeps the incomplete rest."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield (kind, task, payload) of each frame that is complete now.

        Raises:
            WireError: the stream holds something that is no frame.
        """
        start = 0
        # Only the frame that lay across two reads is put together; the others are cut out of what was read.
        while self._rest and start < len(data):
            missing = _size(self._rest) - len(self._rest)
            self._rest += data[start : start + missing]
            start += missing
            if len(self._rest) == _size(self._rest):
                kind, task, _ = HEADER.unpack_from(self._rest)
                payload = bytes(self._rest[HEADER.size :])
                self._rest.clear()
                yield kind, task, payload
        while len(data) - start >= HEADER.size and (end := start + _size(data, start)) <= len(data):
            kind, task, _ = HEADER.unpack_from(data, start)
            yield kind, task, data[start + HEADER.size : end]
            start = end
        self._rest += data[start:]


def _size(data: bytes | bytearray, start: int = 0) -> int:
    """The length of the frame that begins at ``start``, header included; of its header alone while that is not whole."""
    if len(data) - start < HEADER.size:
        return HEADER.size
    kind, _, length = HEADER.unpack_from(data, start)
    if kind > FILE or length > LONGEST:
        raise WireError(f"not a frame: {bytes(data[start : start + 80])!r}")
    size: int = HEADER.size + length
    return size


class Writer:
    """Frames on their way into a non-blocking descriptor; keeps what does not fit yet.

    Args:
        keep: keep what was written, too, until the other side acknowledges it: it can be written again from there on.
    """

    # writev takes at most IOV_MAX (1024) buffers at a time.
    _MOST = 512

    def __init__(self, descriptor: int, *, keep: bool = False) -> None:
        self.descriptor = descriptor
        self.pending = 0
        self._keep = keep
        self._queue: deque[memoryview] = deque()
        self._kept: deque[memoryview] = deque()
        # Of the stream, frames alone: how much is acknowledged, and how much more is kept.
        self._acknowledged = self._size = 0
        self._preceding = 0

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return self.pending + self._size

    def control(self, message: Mapping[str, object]) -> None:
        """Queue one control frame."""
        self._add(control(message))

    def output(self, task: int, data: bytes) -> None:
        """Queue one output frame, without copying the data."""
        self._add(HEADER.pack(OUTPUT, task, len(data)))
        self._add(data)

    def relay(self, task: int, pipe: int, count: int) -> None:
        """Write one output frame of so many bytes that lie in a pipe, and queue what does not fit; nothing is queued before.

        The kernel moves the pages from pipe to pipe, and copies none of them (splice(2)).
        """
        self._add(HEADER.pack(OUTPUT, task, count))
        self.flush()
        left = count
        if not self._queue:
            with suppress(OSError):  # all is taken that can be, or this descriptor is none for it
                while moved := os.splice(pipe, self.descriptor, left, flags=os.SPLICE_F_NONBLOCK):
                    left -= moved
        while left:
            data = b""
            with suppress(BlockingIOError):
                data = os.read(pipe, left)
            # There is less than there was where a worker has read its own output back (by way of /proc).
            data = data or bytes(left)
            self._add(data)
            left -= len(data)

    def file(self, number: int, data: bytes) -> None:
        """Queue one file frame."""
        self._add(HEADER.pack(FILE, number, len(data)))
        self._add(data)

    def precede(self, data: bytes) -> None:
        """Queue what is no frame, before all others; nothing may have been written yet."""
        self._queue.appendleft(memoryview(data))
        self._preceding = len(data)
        self.pending += len(data)

    def flush(self) -> None:
        """Write what the descriptor takes now.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        while self._queue:
            batch = [self._queue[i] for i in range(min(len(self._queue), self._MOST))]
            try:
                written = os.writev(self.descriptor, batch)
            except BlockingIOError:
                return
            except OSError as error:
                # A connection has more ways to be lost than a pipe (tcp(7)).
                raise BrokenPipeError from error
            self._drop(written)

    def acknowledge(self, position: int) -> None:
        """The other side has the stream up to there."""
        while self._kept and self._acknowledged < position:
            head = self._kept[0]
            count = min(len(head), position - self._acknowledged)
            self._acknowledged += count
            self._size -= count
            if count < len(head):
                self._kept[0] = head[count:]
            else:
                self._kept.popleft()

    def rewind(self, position: int) -> None:
        """The other side has the stream up to there, and nothing of what was written after that: write it again."""
        self.acknowledge(position)
        self._queue.extendleft(reversed(self._kept))
        self.pending += self._size
        self._size = 0
        self._kept.clear()

    def _add(self, data: bytes) -> None:
        if data:
            self._queue.append(memoryview(data))
            self.pending += len(data)

    def _drop(self, written: int) -> None:
        self.pending -= written
        while written:
            head = self._queue.popleft()
            if written < len(head):
                self._queue.appendleft(head[written:])
                head = head[:written]
            written -= len(head)
            if self._preceding:
                self._preceding -= len(head)
            elif self._keep:
                self._kept.append(head)
                self._size += len(head)
