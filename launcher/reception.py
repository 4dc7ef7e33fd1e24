"""Who comes to the door of a run is received here: told how it stands, shown what its console is shown, or heard.

Nobody waits for this: what it takes is imported when the workers have been ordered, or when the start takes its time.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher import events
from launcher.agent import wire
from launcher.standing import Standing

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from launcher.door import Door
    from launcher.loop import Loop
    from launcher.plan import Plan
    from launcher.stacks import Report

# After so many seconds somebody may want to know what takes so long.
SOON = 0.5
# Who comes is shown the last that was to be seen, as many bytes.
_LAST = 8 << 10
# The end of a run does not wait any longer for those who follow it.
_FAREWELL = 2.0


class Reception:
    """Receives the visitors of one run. It is the console's audience, and passes on what that is told.

    Args:
        guest: somebody who follows the run from its beginning (``visit.introduce``).
    """

    def __init__(self, folder: Path, guest: socket.socket | None = None) -> None:
        self._folder = folder
        self._guest = guest
        self._door: Door | None = None
        self._standing = Standing(folder.name, time.time())
        self._run: dict[str, object] = {"do": "run", "run": folder.name, "tasks": [], "chief": 0, "attempt": 0}
        self._last: deque[_Frame] = deque()
        self._size = 0
        self._cut: set[int] = set()
        self._told_of_start = False
        self._end: dict[str, object] = {}

    def expect(self, loop: Loop) -> None:
        """Open soon, should nobody have done so by then; for somebody who is there already, at once."""
        if self._guest is None:
            loop.set_timer("door", SOON, lambda: self.open(loop))
        else:
            self.open(loop)

    def open(self, loop: Loop) -> None:
        """Open the door, unless it is."""
        if self._door is not None:
            return
        loop.cancel_timer("door")
        from launcher.door import Door

        with suppress(OSError):  # no descriptor is left: the run does without
            requests = {"stacks": self._stacks, "status": self._status, "stop": self._stop, "follow": self._follow}
            self._door = door = Door(requests)
            loop.open(door)
            if self._guest is not None:
                door.admit(self._guest)
            door.listen(self._folder)  # last, as there are file systems without sockets, and full ones

    def begin(self, plan: Plan, left_out: Sequence[str] = ()) -> None:
        """Another attempt begins."""
        self._standing.begin(plan, left_out, time.time())
        tasks = [task.label for task in plan.tasks]
        self._run |= {"tasks": tasks, "chief": plan.chief, "attempt": plan.attempt}
        self._last = deque(frame for frame in self._last if frame.task is None)
        self._size = sum(len(frame.whole) for frame in self._last)
        self._cut.clear()
        self._pour(wire.control(self._run))

    def wind_up(self) -> None:
        """There is no further attempt."""
        self._standing.wind_up()

    def take(self, event: events.Event, now: float) -> None:
        """Something has happened in it."""
        self._standing.take(event, now)
        if not self._told_of_start and self._standing.started:
            self._told_of_start = True
            self._pour(wire.control({"do": "started"}))

    def output(self, task: int, data: bytes) -> None:
        """A task has written this."""
        self._remember(task, data)
        if self._door is not None:
            self._door.pour(wire.HEADER.pack(wire.OUTPUT, task, len(data)), data, spare=True)

    def finish(self, task: int) -> None:
        """A task writes no more."""
        self._keep({"do": "finished", "task": task}, task)

    def say(self, text: str, *, alarm: bool) -> None:
        """Something was said to the person who is watching."""
        self._keep({"do": "said", "text": text, "alarm": alarm}, None)

    def show_stacks(self, report: Report) -> None:
        """Tell who has asked where all tasks are."""
        if self._door is not None:
            self._door.tell("stacks", {"stacks": report.lines, "full": report.full})

    def end(self, outcome: Mapping[str, Any], *, told: bool) -> None:
        """The run is over."""
        kept = {name: outcome[name] for name in ("exit_status", "reason", "hint")}
        self._end = {"do": "ended", "told": told, **kept}

    def close(self) -> None:
        """See the visitors out: those who follow are given the rest."""
        if self._door is None:
            if self._guest is not None:
                self._guest.close()
            return
        with self._door as door:
            list(door.receive())  # who has come just now
            if self._end:
                door.pour(wire.control(self._end))
            patience = time.monotonic() + _FAREWELL
            while door.owes and time.monotonic() < patience:
                list(door.receive(0.1))
        self._door = self._guest = None

    def _stacks(self, _request: Mapping[str, Any]) -> Iterator[events.Event]:
        if self._standing.at_work:
            yield events.StacksAsked()
        elif self._door is not None:
            self._door.tell("stacks", {"idle": "no workers are running"})

    def _status(self, _request: Mapping[str, Any]) -> Iterator[events.Event]:
        if self._door is not None:
            self._door.tell("status", {**self._standing.as_json(), "pid": os.getpid()})
        yield from ()

    def _stop(self, request: Mapping[str, Any]) -> Iterator[events.Event]:
        if self._door is not None:
            self._door.tell("stop", {})
        yield events.StopAsked(request.get("now") is True)

    def _follow(self, _request: Mapping[str, Any]) -> Iterator[events.Event]:
        if self._door is not None:
            now = wire.control({**self._run, "cut": sorted(self._cut)})
            self._door.keep("follow", now, *(frame.whole for frame in self._last))
        yield from ()

    def _keep(self, message: dict[str, object], task: int | None) -> None:
        frame = wire.control(message)
        self._hold(_Frame(task, frame))
        self._pour(frame)

    def _pour(self, frame: bytes) -> None:
        if self._door is not None:
            self._door.pour(frame)

    def _remember(self, task: int, data: bytes) -> None:
        shown = data[-_LAST:]
        self._hold(_Frame(task, wire.HEADER.pack(wire.OUTPUT, task, len(shown)) + shown, output=True))
        if len(shown) < len(data):
            self._forget(task, data[: -len(shown)])

    def _hold(self, frame: _Frame) -> None:
        self._last.append(frame)
        self._size += len(frame.whole)
        while self._size > _LAST and len(self._last) > 1:
            oldest = self._last.popleft()
            self._size -= len(oldest.whole)
            if oldest.output and oldest.task is not None:
                self._forget(oldest.task, oldest.whole)

    def _forget(self, task: int, data: bytes) -> None:
        """This will not be shown: what is left of the task may begin somewhere in a line."""
        (self._cut.discard if data.endswith(b"\n") else self._cut.add)(task)


class _Frame(NamedTuple):
    """What is shown to those who come later; the task's output, or about a task, or None for what is about none."""

    task: int | None
    whole: bytes
    output: bool = False
