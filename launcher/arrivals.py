"""Files that come from a host, and where they go here."""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Arrivals:
    """Takes them in, below a folder and nowhere else, whatever the host says; each is there whole or not at all.

    Attributes:
        count: how many there are.
    """

    def __init__(self, into: Path) -> None:
        self.count = 0
        self._into = into
        self._entries: list[tuple[Path, int, int]] = []
        self._left: dict[int, int] | None = None

    @property
    def whole(self) -> bool:
        """It is known what was to come, and all of it has."""
        return self._left is not None and not self._left

    def expect(self, entries: Sequence[tuple[str, int, int]]) -> None:
        """Path, permissions and size of each file to come.

        Raises:
            UnavailableError: a path leads out of the folder, or nothing can be written there.
        """
        self.count = len(entries)
        self._entries = [(self._target(path), mode, size) for path, mode, size in entries]
        self._left = {number: size for number, (_, _, size) in enumerate(self._entries)}
        for number in [number for number, size in self._left.items() if not size]:
            self.take(number, b"")

    def take(self, number: int, data: bytes) -> None:
        """The next bytes of a file.

        Raises:
            UnavailableError: they cannot be written.
        """
        assert self._left is not None  # noqa: S101 - a host tells what comes before it comes
        target, mode, size = self._entries[number]
        partial = target.with_name(f".{target.name}.partial")
        try:
            if self._left[number] == size:
                target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb" if self._left[number] == size else "ab") as file:
                file.write(data)
            self._left[number] -= len(data)
            if self._left[number] <= 0:
                partial.chmod(mode & 0o777)
                partial.replace(target)
                del self._left[number]
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise UnavailableError(f"cannot write {target}: {error.strerror}") from None

    def _target(self, path: str) -> Path:
        parts = PurePosixPath(path)
        target = self._into / parts
        if parts.is_absolute() or ".." in parts.parts or not target.resolve().is_relative_to(self._into.resolve()):
            raise UnavailableError(f"a host wanted to write {path}, which is outside of {self._into}")
        return target
