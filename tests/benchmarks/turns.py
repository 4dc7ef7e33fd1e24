"""Workers that do a block of their work whenever they are told to, and say what it came to."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from io import RawIOBase
    from pathlib import Path

    from tests.benchmarks.trial import Run


class Turns:
    """A socket in ``folder``, where workers come in once they are ready; each line they read there is an order."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "turns"
        self._open = ExitStack()
        self._door = self._open.enter_context(socket.socket(socket.AF_UNIX))
        self._door.bind(str(self.path))
        self._door.listen()
        self._workers: list[RawIOBase] = []

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def gather(self, run: Run, count: int) -> None:
        """Wait until so many workers are there.

        Raises:
            Failed: their launcher has ended, or it takes too long.
        """
        while len(self._workers) < count:
            run.wait_for(self._door.fileno(), f"did not get its {count} workers to train")
            worker = self._open.enter_context(self._door.accept()[0])
            self._workers.append(self._open.enter_context(worker.makefile("rwb", buffering=0)))

    def take(self, run: Run) -> list[float]:
        """Have all workers do a block; returns what each says of it.

        Raises:
            Failed: one has ended, or it takes too long.
        """
        for worker in self._workers:
            worker.write(b"\n")
        return [self._heard(run, worker) for worker in self._workers]

    @staticmethod
    def _heard(run: Run, worker: RawIOBase) -> float:
        run.wait_for(worker.fileno(), "did not train to the end")
        if line := worker.readline():
            return float(line)
        raise Failed("lost a worker while it trained")
