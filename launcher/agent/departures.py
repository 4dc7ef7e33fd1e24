"""Processes on their way out: how long one may take to end, and how long what it leaves behind may hold its pipes."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .intake import Intake
    from .process import Process

# How long descendants of a worker that is gone may hold its pipes.
DRAIN = 2.0


class Departures:
    """Those that something is to be done about when its time has come."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._leaving: set[Process] = set()

    def stop(self, process: Process, grace: float) -> None:
        """Begin its stop ladder."""
        if process.terminate(grace):
            self._leaving.add(process)

    def drain(self, process: Process) -> None:
        """It has ended; what is in its pipes is still to come."""
        process.drain_by = time.monotonic() + DRAIN
        self._leaving.add(process)

    def complete(self, process: Process) -> bool:
        """Whether nothing more is to come of it. It is so once."""
        if process.ended is None or process.open or process.drain_by is None:
            return False
        process.drain_by = None
        self._leaving.discard(process)
        return True

    def moments(self) -> Iterator[float]:
        """When there is something to do (monotonic)."""
        for process in self._leaving:
            yield from (at for at in (process.kill_at, process.drain_by) if at is not None)

    def on_time(self, now: float) -> None:
        """Do what is to be done by now."""
        for process in tuple(self._leaving):
            if process.kill_at is not None and now >= process.kill_at:
                process.kill()
            if process.drain_by is not None and now > process.drain_by + DRAIN:
                # So late only after the agent itself had been suspended: there may be much in the pipes.
                process.drain_by = now + DRAIN
            elif process.drain_by is not None and now >= process.drain_by:
                self._give_up(process)

    def _give_up(self, process: Process) -> None:
        if self._intake.keeps_waiting(process):
            # It is the launcher that is slow: what waits in the pipe is the worker's own.
            process.drain_by = time.monotonic() + DRAIN
            return
        for descriptor in list(process.open):
            self._intake.close(process, descriptor)
