"""What cannot be sent for now, on this host's disk: bytes in order, as many as there is room for."""

from __future__ import annotations

import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_PIECE = 1 << 18
# More than a minute of what a disk takes; beyond it, whoever writes has to wait.
_MOST = 4 << 30


class Backlog:
    """First in, first out.

    Attributes:
        full: nothing more should come: the disk is full, or there is too much already. What comes all the same is kept in memory.
    """

    def __init__(self) -> None:
        import tempfile

        self._file: BinaryIO | None = None
        # Without a name: nothing is left of it, however this process ends.
        with suppress(OSError):
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - for as long as this is
        self._read = self._written = 0
        self._rest: list[bytes] = []
        self.full = self._file is None

    def __bool__(self) -> bool:
        return self._read < self._written or bool(self._rest)

    def put(self, data: bytes) -> None:
        """Append ``data``."""
        if self._rest or self._file is None:
            self._rest.append(data)
            return
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._file.fileno(), view, self._written)
                self._written += count
                view = view[count:]
        except OSError:
            self._rest.append(bytes(view))
        self.full = bool(self._rest) or self._written - self._read > _MOST

    def take(self) -> bytes:
        """The next bytes; empty when there are none."""
        if self._file is not None and self._read < self._written:
            data = os.pread(self._file.fileno(), min(_PIECE, self._written - self._read), self._read)
            self._read += len(data)
            return data
        return self._rest.pop(0) if self._rest else b""

    def close(self) -> None:
        """Give the room back."""
        if self._file is not None:
            self._file.close()
