"""The one owner of a run's state: events in, commands out. It sees no clock, file or process; the caller does.

A run goes from *running* to *ending*. What moves it: every deciding task is done; a task of the cluster failed; a host
was lost; a signal or a deadline said stop. After that it only waits for what is left to go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any

from launcher import events, network
from launcher.commands import (
    Abandon,
    AskStacks,
    AskWhoListens,
    KeepStacks,
    Kill,
    Say,
    SetTimer,
    ShowStacks,
    Spawn,
    Stop,
)
from launcher.halts import Halts
from launcher.joining import Joining
from launcher.names import together
from launcher.pulse import Pulse
from launcher.restart import Try
from launcher.roster import Roster
from launcher.verdict import Interruption, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from launcher.commands import Command
    from launcher.placement import Task
    from launcher.plan import Plan
    from launcher.roll_call import RollCall
    from launcher.roster import TaskState
    from launcher.stacks import Report


# When all is to end, a host that cannot be reached is waited for no longer. Its agent ends what is there by itself.
DOWN = 10.0


@dataclass
class Supervisor:
    """The state of one attempt, and what to do next.

    Attributes:
        pulse: its signs of progress. Whoever sees output sets ``pulse.spoke``: that is too much for events.
        stacks: where all tasks were before it was ended for want of progress or time; None when it was not.

    Feed it ``start`` once, then every event; carry out the commands it returns; when it is ``finished``, ask for the
    ``verdict``.
    """

    plan: Plan
    pulse: Pulse = field(init=False)
    stacks: Report | None = field(init=False, default=None)
    _down: set[str] = field(init=False, default_factory=set)
    _tasks: Roster = field(init=False)
    _awaited: set[int] = field(init=False)
    _now: float = field(init=False, default=0.0)
    _ending: bool = field(init=False, default=False)
    _signals: int = field(init=False, default=0)
    _cold: set[str] = field(init=False, default_factory=set)
    _halts: Halts = field(init=False, default_factory=Halts)
    _interruption: Interruption | None = field(init=False, default=None)
    _joining: Joining = field(init=False)
    _evaluations: int = field(init=False, default=0)
    _roll_call: RollCall | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.plan.config.hang_deadline)
        self._joining = Joining(self.plan)
        self._tasks = Roster(self.plan.tasks)
        self._awaited = set(self.plan.deciding)

    @property
    def finished(self) -> bool:
        """Nothing of the run is left."""
        return self._tasks.finished

    def verdict(self) -> Verdict:
        """What happened."""
        # Whoever stops a run that waits for a stopped task is who ended it.
        waited = self._interruption is None
        return judge([state.ending(waited=waited) for state in self._tasks], self._interruption)

    def attempt(self) -> Try:
        """What is to be known of the attempt when it is over, to decide whether there is to be another one."""
        return Try(self.verdict(), self.pulse.step, self.pulse.good, self.stacks)

    def exits(self) -> Mapping[int, events.TaskExited]:
        """How each task ended that was seen to end, by number."""
        return self._tasks.exits()

    def start(self) -> list[Command]:
        """The first commands."""
        commands: list[Command] = [Spawn(task.number) for task in self.plan.tasks]
        if self.plan.config.timeout is not None and self.plan.attempt == 0:
            commands.append(SetTimer("run", self.plan.config.timeout))
        if self._joining.seconds:
            commands.append(SetTimer("join", self._joining.seconds))
        if self.plan.config.hang_deadline is not None:
            commands += self._watch()
        return commands

    def handle(self, event: events.Event, now: float) -> list[Command]:
        """Take in one event; ``now`` is seconds since the epoch."""
        self._now = now
        commands = self._take_in(event)
        if self._roll_call is not None and (self.finished or self._roll_call.complete):
            commands += self._end_roll_call(self._roll_call)
        return commands

    def _take_in(self, event: events.Event) -> list[Command]:
        match event:
            case events.TaskExited():
                return self._on_exit(event)
            case events.TaskReport(_, {"kind": "cold", "why": str(why)}):
                return self._on_cold(why)
            case events.TaskReport(number, {"kind": "unanswered", "places": [*places]}):
                self._tasks[number].unanswered.update(network.tasks_at(map(str, places), self.plan.places))
            case events.TaskReport(number, record):
                return self._on_report(self._tasks[number], record)
            case events.AgentFault(order="spawn", task=int(number)):
                return self._on_spawn_fault(self._tasks[number], event)
            case events.AgentLost(host, why):
                self._down.discard(host)
                return self._on_lost(host, why)
            case events.LinkDown(host, why):
                return self._on_link_down(host, why)
            case events.LinkUp(host, after):
                self._down.discard(host)
                return [Say(f"{host} is back after {after:.0f} s; nothing of it was lost")]
            case events.DeadlinePassed(name) if name.removeprefix("down ") in self._down:
                return [Abandon(name.removeprefix("down "))]
            case events.Signalled(number):
                return self._on_signal(number)
            case events.StopAsked(now):
                return self._on_stop_asked(now=now)
            case events.HostTerminated(host):
                return self._on_host_terminated(host)
            case events.TaskStopped(number, at):
                return self._on_stopped(self._tasks[number], at)
            case events.TaskResumed(number):
                return self._halts.end(self._tasks[number])
            case events.DeadlinePassed(name) if name in self._halts:
                return self._on_out_of_patience(self._tasks[self._halts.expire(name)])
            case events.DeadlinePassed("join"):
                return self._on_join_deadline()
            case events.PortsListening(host, ports):
                return self._on_listening(host, ports)
            case events.DeadlinePassed("hang") if self.pulse.watched and not self._ending:
                return self._on_hang_deadline()
            case events.DeadlinePassed("run"):
                self._interruption = self._interruption or Interruption(self._now, timeout=self.plan.config.timeout)
                return self._stop_after_roll_call()
            case events.StacksAsked():
                return self._call_roll(last=False)
            case events.TaskStacks() if self._roll_call is not None:
                self._roll_call.take(event)
            case events.HostCalled(host) if self._roll_call is not None:
                self._roll_call.hear(host)
            case events.DeadlinePassed("roll call") if self._roll_call is not None:
                return self._end_roll_call(self._roll_call)
            case events.DeadlinePassed("afterwards"):
                return self._stop(state for state in self._tasks if state.task.job == "evaluator")
        return []

    def _on_cold(self, why: str) -> list[Command]:
        """Said once, for however many tasks it holds."""
        if why in self._cold:
            return []
        self._cold.add(why)
        return [Say(f"starting cold: {why}")]

    def _watch(self) -> list[Command]:
        return [SetTimer("hang", self.pulse.watch())] if self.pulse.deadline else []

    def _on_hang_deadline(self) -> list[Command]:
        again = self.pulse.look(self._now)
        if again is not None:
            return [SetTimer("hang", again)]
        said = self.pulse.words()
        hint = "raise --hang-deadline if it only took long, as an evaluation may"
        self._interruption = self._interruption or Interruption(self._now, hung=said, hint=hint)
        return [Say(said), *self._stop_after_roll_call()]

    def _on_join_deadline(self) -> list[Command]:
        if self._ending or self.pulse.beats:  # who makes progress has found its peers
            return []
        return [AskWhoListens(host) for host in self._joining.ask(one.task.host for one in self._tasks if not one.lost)]

    def _on_listening(self, host: str, ports: Iterable[int]) -> list[Command]:
        if not self._joining.hear(host, ports) or self._ending:
            return []
        late = self._joining.late(self._tasks.over())
        if not late:
            return []
        if self._joining.nobody_waits:
            return [SetTimer("join", self._joining.seconds)]
        said = f"{together(task.label for task in late)} did not listen for peers within {self._joining.seconds:g} s"
        hint = "raise --join-deadline if that only took long"
        self._interruption = Interruption(self._now, hung=said, hint=hint)
        return self._stop_after_roll_call(late)

    def _call_roll(self, *, last: bool, late: Iterable[Task] = ()) -> list[Command]:
        """Have all tasks be asked where they are, unless they are being asked: before the ``last`` stop, or for somebody."""
        from launcher.roll_call import PATIENCE, RollCall

        if self._roll_call is None:
            warm = {launch.task.number for launch in self.plan.launches if launch.finds_tensorflow}
            self._roll_call = RollCall((state.task for state in self._tasks.alive()), warm)
        call = self._roll_call
        if last:
            call.last, call.late = True, call.late or list(late)
        else:
            call.asked = True
        hosts = call.ask()
        return [*map(AskStacks, hosts), SetTimer("roll call", PATIENCE)] if hosts else []

    def _stop_after_roll_call(self, late: Iterable[Task] = ()) -> list[Command]:
        """Stop all, but ask them first: once they are stopped, nobody knows any more what they waited for."""
        self._ending = True
        if all(state.told_to_stop is not None for state in self._tasks.alive()):
            return []
        return self._call_roll(last=True, late=late)

    def _end_roll_call(self, call: RollCall) -> list[Command]:
        from launcher import stacks

        self._roll_call = None
        call.close(self._tasks.over())
        report = stacks.report(call.answers())
        commands: list[Command] = [ShowStacks(report)] if call.asked else []
        if call.last:
            self.stacks = report
            commands += [KeepStacks(report), *self._say_who_is_late(call), *self._stop_all(look=True)]
        return commands

    def _say_who_is_late(self, call: RollCall) -> list[Command]:
        from launcher import stacks

        if not call.late or self._interruption is None:
            return []
        said = f"{self._interruption.hung}: {stacks.doing(call.answers(call.late))}"
        self._interruption = self._interruption._replace(hung=said)
        return [Say(said)]

    def _on_report(self, state: TaskState, record: Mapping[str, Any]) -> list[Command]:
        match record.get("kind"):
            case "progress" | "metrics" | "checkpoint" if state.task.job != "evaluator":
                self.pulse.sign(record.get("step"), self._now)
                return [] if self.pulse.watched else self._watch()
            case "preempted":
                state.preempted = record
            case "error" | "exit" | "not-started":
                # A script that is told to stop may well fail at it: that tells nothing about the cause.
                told = state.told_to_stop
                state.error = {**record, "after_stop": told is not None and record.get("time", self._now) >= told}
        return []

    def _on_host_terminated(self, host: str) -> list[Command]:
        self._interruption = self._interruption or Interruption(self._now, host=host)
        return [Say(f"{host} was told to end: stopping all"), *self._stop_all()]

    def _on_stopped(self, state: TaskState, at: float) -> list[Command]:
        return [] if state.over or self._ending or state.stopped is not None else self._halts.begin(state, at)

    def _on_out_of_patience(self, state: TaskState) -> list[Command]:
        if state.over or self._ending:
            return []
        if state.task.job == "evaluator":
            return [Say(f"{state.task.label} is still stopped; training goes on without it")]
        return self._stop_after_roll_call()

    def _on_exit(self, event: events.TaskExited) -> list[Command]:
        state = self._tasks[event.task]
        state.exited = event
        if self._ending:
            return []
        if not state.succeeded:
            return self._on_failure(state)
        self._awaited.discard(event.task)
        return [] if self._awaited else self._on_success()

    def _on_failure(self, state: TaskState) -> list[Command]:
        if state.task.job == "evaluator":
            # It is no member of the collective: training does not need it, and goes on.
            if self._evaluations < self.plan.config.max_restarts:
                self._evaluations += 1
                state.exited = state.error = None
                return [Say(f"{state.task.label} failed; it is started again"), Spawn(state.task.number)]
            return [Say(f"{state.task.label} failed; training goes on without it")]
        # No peer, and no network, sends a SIGKILL.
        return self._stop_all(look=state.exited is None or state.exited.signal != SIGKILL)

    def _on_success(self) -> list[Command]:
        """The cluster is done. Servers never end by themselves; an evaluator may have a last checkpoint to look at."""
        self._ending = True
        servers = self._stop(state for state in self._tasks if state.task.job != "evaluator")
        waiting = any(state.task.job == "evaluator" for state in self._tasks.alive())
        return [*servers, SetTimer("afterwards", self.plan.config.grace)] if waiting else servers

    def _on_spawn_fault(self, state: TaskState, event: events.AgentFault) -> list[Command]:
        state.error = {"kind": "not-started", "step": event.step, "error": event.reason, "errno": event.number}
        return self._on_exit(events.TaskExited(state.task.number, 127, None, False, False, (), 0, self._now))

    def _on_link_down(self, host: str, why: str) -> list[Command]:
        self._down.add(host)
        said = Say(f"no connection to {host} ({why}); its workers go on for {self.plan.config.lease:g} s without it")
        return [said, SetTimer(f"down {host}", DOWN)] if self._ending else [said]

    def _on_lost(self, host: str, why: str) -> list[Command]:
        self._tasks.lose(host, why, self._now)
        call = self._roll_call
        if call is not None:
            call.hear(host)
        return [] if call is not None and call.last else self._stop_all(look=True)

    def _on_signal(self, number: int) -> list[Command]:
        self._signals += 1
        self._interruption = self._interruption or Interruption(self._now, signal=number)
        if self._signals == 1:
            left = len(self._tasks.alive())
            noun = "task" if left == 1 else "tasks"
            grace = self.plan.config.grace
            return [Say(f"stopping {left} {noun}, up to {grace:g} s each; once more kills them"), *self._stop_all()]
        self._ending = True
        killed = [Kill(state.task.number) for state in self._tasks.alive()]
        return [*killed, *(Abandon(host) for host in sorted(self._down))]

    def _on_stop_asked(self, *, now: bool) -> list[Command]:
        """Whoever asks twice has not grown impatient: it may be two who ask."""
        commands = [] if self._signals else self._on_signal(SIGTERM)
        return [*commands, *self._on_signal(SIGTERM)] if now else commands

    def _stop_all(self, *, look: bool = False) -> list[Command]:
        self._ending = True
        return [*self._stop(self._tasks, look=look), *(SetTimer(f"down {host}", DOWN) for host in sorted(self._down))]

    def _stop(self, states: Iterable[TaskState], *, look: bool = False) -> list[Command]:
        left = [state for state in states if not state.over and state.told_to_stop is None]
        for state in left:
            state.told_to_stop = self._now
        return [Stop(tuple(state.task.number for state in left), self.plan.config.grace, look)] if left else []
