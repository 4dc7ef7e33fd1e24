"""The one owner of a run's state: events in, commands out. It sees no clock, file or process; the caller does.

A run goes from *running* to *ending*. What moves it: every deciding task is done; a task of the cluster failed; a host
was lost; a signal or a deadline said stop. After that it only waits for what is left to go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher import events, network
from launcher.verdict import Ending, Interruption, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from launcher.placement import Task
    from launcher.plan import Plan


class Spawn(NamedTuple):
    """Start this task's process."""

    task: int


class Stop(NamedTuple):
    """Walk the stop ladder with this task: SIGTERM, its own grace period, SIGKILL."""

    task: int
    grace: float


class Kill(NamedTuple):
    """End this task now."""

    task: int


class Signal(NamedTuple):
    """Send this signal to the task's main process, as anybody from outside might."""

    task: int
    name: str


class SetLine(NamedTuple):
    """Cut the line between two tasks, or mend it (``up``)."""

    one: int
    other: int
    up: bool


class SetTimer(NamedTuple):
    """Post DeadlinePassed(name) after this many seconds."""

    name: str
    seconds: float


class Say(NamedTuple):
    """Tell the person who is watching."""

    text: str


Command = Spawn | Stop | Kill | Signal | SetLine | SetTimer | Say


@dataclass
class _TaskState:
    task: Task
    exited: events.TaskExited | None = None
    error: Mapping[str, Any] | None = None
    lost: str = ""
    told_to_stop: float | None = None
    unanswered: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        return self.exited is not None or bool(self.lost)

    @property
    def succeeded(self) -> bool:
        return self.exited is not None and self.exited.status == 0

    def ending(self) -> Ending:
        return Ending(self.task, self.exited, self.error, self.lost, tuple(sorted(self.unanswered)))


@dataclass
class Supervisor:
    """The state of one attempt, and what to do next.

    Feed it ``start`` once, then every event; carry out the commands it returns; when it is ``finished``, ask for the
    ``verdict``.
    """

    plan: Plan
    _states: list[_TaskState] = field(init=False)
    _now: float = field(init=False, default=0.0)
    _ending: bool = field(init=False, default=False)
    _signals: int = field(init=False, default=0)
    _cold: set[str] = field(init=False, default_factory=set)
    _interruption: Interruption | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._states = [_TaskState(task) for task in self.plan.tasks]

    @property
    def finished(self) -> bool:
        """Nothing of the run is left."""
        return all(state.over for state in self._states)

    def verdict(self) -> Verdict:
        """What happened."""
        return judge([state.ending() for state in self._states], self._interruption)

    def exits(self) -> Mapping[int, events.TaskExited]:
        """How each task ended that was seen to end, by number."""
        return {state.task.number: state.exited for state in self._states if state.exited is not None}

    def start(self) -> list[Command]:
        """The first commands."""
        commands: list[Command] = [Spawn(task.number) for task in self.plan.tasks]
        if self.plan.config.timeout is not None:
            commands.append(SetTimer("run", self.plan.config.timeout))
        return commands

    def handle(self, event: events.Event, now: float) -> list[Command]:
        """Take in one event; ``now`` is seconds since the epoch."""
        self._now = now
        match event:
            case events.TaskExited():
                return self._on_exit(event)
            case events.TaskReport(_, {"kind": "cold", "why": str(why)}):
                return self._on_cold(why)
            case events.TaskReport(number, {"kind": "unanswered", "places": [*places]}):
                self._states[number].unanswered.update(network.tasks_at(map(str, places), self.plan.places))
            case events.TaskReport(number, record):
                self._on_report(self._states[number], record)
            case events.AgentFault(order="spawn", task=int(number)):
                return self._on_spawn_fault(self._states[number], event)
            case events.AgentLost(host, why):
                return self._on_lost(host, why)
            case events.Signalled(number):
                return self._on_signal(number)
            case events.DeadlinePassed("run"):
                self._interruption = self._interruption or Interruption(now, timeout=self.plan.config.timeout)
                return self._stop_all()
            case events.DeadlinePassed("afterwards"):
                return self._stop(state for state in self._states if state.task.job == "evaluator")
        return []

    def _on_cold(self, why: str) -> list[Command]:
        """Said once, for however many tasks it holds."""
        if why in self._cold:
            return []
        self._cold.add(why)
        return [Say(f"starting cold: {why}")]

    def _on_report(self, state: _TaskState, record: Mapping[str, Any]) -> None:
        match record.get("kind"):
            case "error" | "exit" | "not-started":
                # A script that is told to stop may well fail at it: that tells nothing about the cause.
                told = state.told_to_stop
                state.error = {**record, "after_stop": told is not None and record.get("time", self._now) >= told}

    def _on_exit(self, event: events.TaskExited) -> list[Command]:
        state = self._states[event.task]
        state.exited = event
        if self._ending:
            return []
        if not state.succeeded:
            return self._on_failure(state)
        if all(self._states[number].succeeded for number in self.plan.deciding):
            return self._on_success()
        return []

    def _on_failure(self, state: _TaskState) -> list[Command]:
        if state.task.job == "evaluator":
            # It is no member of the collective: training does not need it, and goes on.
            return [Say(f"{state.task.label} failed; training goes on without it")]
        return self._stop_all()

    def _on_success(self) -> list[Command]:
        """The cluster is done. Servers never end by themselves; an evaluator may have a last checkpoint to look at."""
        self._ending = True
        servers = self._stop(state for state in self._states if state.task.job != "evaluator")
        waiting = any(not state.over and state.task.job == "evaluator" for state in self._states)
        return [*servers, SetTimer("afterwards", self.plan.config.grace)] if waiting else servers

    def _on_spawn_fault(self, state: _TaskState, event: events.AgentFault) -> list[Command]:
        state.error = {"kind": "not-started", "step": "be started", "error": event.reason, "errno": event.number}
        return self._on_exit(events.TaskExited(state.task.number, 127, None, False, False, (), 0, self._now))

    def _on_lost(self, host: str, why: str) -> list[Command]:
        for state in self._states:
            if state.task.host == host and not state.over:
                state.lost = why
        return self._stop_all()

    def _on_signal(self, number: int) -> list[Command]:
        self._signals += 1
        self._interruption = self._interruption or Interruption(self._now, signal=number)
        if self._signals == 1:
            left = sum(not state.over for state in self._states)
            noun = "task" if left == 1 else "tasks"
            grace = self.plan.config.grace
            return [Say(f"stopping {left} {noun}, up to {grace:g} s each; once more kills them"), *self._stop_all()]
        self._ending = True
        return [Kill(state.task.number) for state in self._states if not state.over]

    def _stop_all(self) -> list[Command]:
        self._ending = True
        return self._stop(self._states)

    def _stop(self, states: Iterable[_TaskState]) -> list[Command]:
        commands: list[Command] = []
        for state in states:
            if not state.over and state.told_to_stop is None:
                state.told_to_stop = self._now
                commands.append(Stop(state.task.number, self.plan.config.grace))
        return commands
