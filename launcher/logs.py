"""The logs of a run, read as they grow, from attempt to attempt."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from launcher.placement import JOBS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECE = 1 << 20


class Logs:
    """What has been read so far of the logs of a run.

    Args:
        slug: the task, such as ``worker-1``; None for all of them.
        attempt: its number; None for all of them.
    """

    def __init__(self, folder: Path, slug: str | None, attempt: int | None) -> None:
        self._folder = folder
        self._pattern = f"attempt-{'*' if attempt is None else attempt}/{slug or '*'}.log"
        self._read: dict[Path, int] = {}

    @property
    def slugs(self) -> list[str]:
        """The tasks that have written something, in the order of the plan."""
        return list(dict.fromkeys(path.stem for path in sorted(self._paths(), key=lambda path: _order(path)[1:])))

    def more(self) -> Iterator[tuple[int, str, bytes]]:
        """Yield (attempt, task, bytes) of what has been written since."""
        for path in sorted(self._paths(), key=_order):
            while piece := self._next(path):
                yield _order(path)[0], path.stem, piece

    def _paths(self) -> Iterator[Path]:
        return self._folder.glob(self._pattern)

    def _next(self, path: Path) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            piece = os.pread(descriptor, _PIECE, self._read.get(path, 0))
        finally:
            os.close(descriptor)
        self._read[path] = self._read.get(path, 0) + len(piece)
        return piece


def _order(path: Path) -> tuple[int, int, int]:
    job, _, index = path.stem.rpartition("-")
    return int(path.parent.name.rpartition("-")[2]), JOBS.index(job), int(index)
