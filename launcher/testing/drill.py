"""A supervisor under which things go wrong to order.

It sees no clock, file or process either: an order is an event (``FaultOrdered``), and what it comes to are commands.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from launcher import events
from launcher.commands import SetLine, SetTimer, Signal
from launcher.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from launcher.commands import Command
    from launcher.testing.faults import Faults

# One round of a task that is slowed down: it runs for its share of this, and is stopped for the rest.
_ROUND = 0.05


@dataclass
class _Slow:
    task: int
    cpu: float
    running: bool = True


@dataclass
class Drill(Supervisor):
    """One attempt of a test.

    After a fault to order the tasks are left to themselves: the test wants to see what the others make of it. They are
    stopped when only such are left that would not end by themselves.

    Attributes:
        tell: is told what the test's thread may wait for: starts, reports, and that what was ordered is done.
        faults: what the tasks will do to themselves.
    """

    tell: Callable[[events.Event], None]
    faults: Faults
    _slow: dict[str, _Slow] = field(init=False, default_factory=dict)
    _paused: set[int] = field(init=False, default_factory=set)
    _ordered: deque[bool] = field(init=False, default_factory=deque)
    _patient: bool = field(init=False)
    _stops: Mapping[int, int] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._stops = self.faults.stops
        self._patient = self.faults.deadly or bool(self._stops) or bool(self.faults.cut)

    def start(self) -> list[Command]:
        """The first commands."""
        return [*(self._set_line(*pair, up=False) for pair in self.faults.cut), *super().start()]

    def handle(self, event: events.Event, now: float) -> list[Command]:
        """Take in one event."""
        match event:
            case events.FaultOrdered(task, "drop_link" | "restore_link" as fault, peer=peer):
                self._patient = True
                return [self._set_line(task, peer, up=fault == "restore_link", ordered=True)]
            case events.FaultOrdered(task, fault, cpu):
                return self._make(task, fault, cpu)
            case events.TaskSignalled() | events.LineSet():
                # The agent answers in order. What slowing down takes is nobody's order.
                if self._ordered.popleft():
                    self.tell(event)
                return []
            case events.DeadlinePassed("run"):
                return [*self._let_go_on(), *super().handle(event, now)]
            case events.DeadlinePassed(name) if name in self._slow:
                return self._beat(name)
            case events.TaskReport(task, {"kind": "progress", "step": int(step)}) if step >= self._stops.get(
                task, step + 1
            ):
                self._paused.add(task)
        commands = super().handle(event, now)
        self.tell(event)
        return commands

    def _make(self, task: int, fault: str, cpu: float) -> list[Command]:
        self._slow.pop(_name(task), None)
        match fault:
            case "kill":
                self._patient = True
                return [self._signal(task, "SIGKILL", ordered=True)]
            case "pause":
                self._patient = True
                self._paused.add(task)
                return [self._signal(task, "SIGSTOP", ordered=True)]
            case "slow":
                self._slow[_name(task)] = _Slow(task, cpu)
                return self._beat(_name(task), ordered=True)
        self._paused.discard(task)
        return [self._signal(task, "SIGCONT", ordered=True)]

    def _beat(self, name: str, *, ordered: bool = False) -> list[Command]:
        """A task that is slowed down takes turns with nobody: it runs, and is stopped, and runs."""
        slow = self._slow[name]
        state = self._tasks[slow.task]
        if not ordered and (state.over or state.told_to_stop is not None):
            del self._slow[name]
            return []
        slow.running = not slow.running
        seconds = _ROUND * (slow.cpu if slow.running else 1 - slow.cpu)
        sent = self._signal(slow.task, "SIGCONT" if slow.running else "SIGSTOP", ordered=ordered)
        return [sent, SetTimer(name, seconds)]

    def _let_go_on(self) -> list[Command]:
        """Slow down nobody any more: what happens to be stopped has no stacks to show."""
        slow = [one.task for one in self._slow.values() if not one.running]
        self._slow.clear()
        return [self._signal(task, "SIGCONT") for task in slow]

    def _signal(self, task: int, name: str, *, ordered: bool = False) -> Signal:
        self._ordered.append(ordered)
        return Signal(task, name)

    def _set_line(self, one: int, other: int, *, up: bool, ordered: bool = False) -> SetLine:
        self._ordered.append(ordered)
        return SetLine(one, other, up)

    def _on_stopped(self, state: object, at: float) -> list[Command]:
        """What the test has paused, or slows down, is no news; it may stay so for as long as the test wants."""
        del state, at
        return []

    def _on_exit(self, event: events.TaskExited) -> list[Command]:
        return super()._on_exit(event) or self._stop_who_would_stay()

    def _stop_all(self, *, look: bool = False) -> list[Command]:
        return super()._stop_all(look=look) if not self._patient or self._interruption else []

    def _stop_who_would_stay(self) -> list[Command]:
        failed = any(state.over and not state.succeeded for state in self._tasks)
        at_work = [
            state.task.number for state in self._tasks if not state.over and state.task.number in self.plan.deciding
        ]
        if self._ending or not failed or set(at_work) - self._paused:
            return []
        return super()._stop_all(look=True)


def _name(task: int) -> str:
    return f"slow {task}"
