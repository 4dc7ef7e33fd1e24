from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from launcher import plan as plan_module
from launcher.commands import AskStacks, Kill, SetLine, SetTimer, Signal, Spawn, Stop
from launcher.config import ClusterConfig, Function, HostSpec
from launcher.events import (
    DeadlinePassed,
    Event,
    FaultOrdered,
    HostCalled,
    LineSet,
    Signalled,
    TaskExited,
    TaskReport,
    TaskSignalled,
    TaskStacks,
)
from launcher.placement import Host, place
from launcher.roll_call import PATIENCE
from launcher.testing.drill import Drill
from launcher.testing.faults import Faults

if TYPE_CHECKING:
    from launcher.commands import Command


class Attempt:
    """A drill with a clock that goes on by a second with every event, and what it has told."""

    def __init__(self, faults: Faults | None = None, **settings: Any) -> None:
        chosen = {"workers": 2, "timeout": 9.0, **settings}
        config = ClusterConfig(command=Function("p"), name="t", engine="local", hosts=(HostSpec("a"),), **chosen)
        plan = plan_module.make(config, place(config, [Host("a")]), [Host("a")], "py", {}, run="t-1")
        self.told: list[Event] = []
        self.drill = Drill(plan, self.told.append, faults or Faults())
        self.first = self.drill.start()
        self.now = 1000.0

    def post(self, event: Event) -> list[Command]:
        self.now += 1
        return self.drill.handle(event, self.now)

    def exit(self, task: int, status: int | None = 0, signal: int | None = None) -> list[Command]:
        return self.post(TaskExited(task, status, signal, False, False, (), 0, self.now + 1))


@pytest.fixture
def attempt() -> Attempt:
    return Attempt()


def stops(commands: list[Command]) -> list[int]:
    return [task for command in commands if isinstance(command, Stop) for task in command.tasks]


class TestOrders:
    @pytest.mark.parametrize(("fault", "name"), [("kill", "SIGKILL"), ("pause", "SIGSTOP"), ("resume", "SIGCONT")])
    def test_each_is_a_signal_and_told_when_it_is_sent(self, attempt: Attempt, fault: str, name: str) -> None:
        assert attempt.post(FaultOrdered(1, fault)) == [Signal(1, name)]
        assert attempt.told == []
        sent = TaskSignalled(1, name, alive=True)
        attempt.post(sent)
        assert attempt.told == [sent]

    @pytest.mark.parametrize(("fault", "up"), [("drop_link", False), ("restore_link", True)])
    def test_a_line_is_set_and_told_when_it_is(self, attempt: Attempt, fault: str, up: bool) -> None:
        assert attempt.post(FaultOrdered(0, fault, peer=1)) == [SetLine(0, 1, up)]
        done = LineSet(("10.77.0.1", "10.77.0.2"), up)
        attempt.post(done)
        assert attempt.told == [done]
        assert attempt.exit(1, 1) == []

    def test_a_line_is_cut_before_anybody_is_there_to_use_it(self) -> None:
        attempt = Attempt(Faults(cut=[(0, 1)]))
        assert attempt.first[:2] == [SetLine(0, 1, up=False), Spawn(0)]
        attempt.post(LineSet(("10.77.0.1", "10.77.0.2"), up=False))
        assert attempt.told == []
        assert attempt.exit(1, 1) == []

    def test_a_slow_task_is_stopped_for_the_rest_of_each_round(self, attempt: Attempt) -> None:
        stopped, running = pytest.approx(0.04), pytest.approx(0.01)
        assert attempt.post(FaultOrdered(1, "slow", 0.2)) == [Signal(1, "SIGSTOP"), ("slow 1", stopped)]
        assert attempt.post(DeadlinePassed("slow 1")) == [Signal(1, "SIGCONT"), ("slow 1", running)]
        assert attempt.post(DeadlinePassed("slow 1")) == [Signal(1, "SIGSTOP"), ("slow 1", stopped)]

    def test_what_that_takes_is_nobodys_order(self, attempt: Attempt) -> None:
        attempt.post(FaultOrdered(1, "slow", 0.2))
        attempt.post(DeadlinePassed("slow 1"))
        attempt.post(FaultOrdered(0, "pause"))
        for task, name in ((1, "SIGSTOP"), (1, "SIGCONT"), (0, "SIGSTOP")):
            attempt.post(TaskSignalled(task, name, alive=True))
        assert attempt.told == [TaskSignalled(1, "SIGSTOP", alive=True), TaskSignalled(0, "SIGSTOP", alive=True)]

    @pytest.mark.parametrize("fault", ["resume", "pause", "kill"])
    def test_another_order_ends_the_rounds(self, attempt: Attempt, fault: str) -> None:
        attempt.post(FaultOrdered(1, "slow", 0.2))
        attempt.post(FaultOrdered(1, fault))
        assert attempt.post(DeadlinePassed("slow 1")) == []

    def test_the_rounds_end_with_the_task(self, attempt: Attempt) -> None:
        attempt.post(FaultOrdered(1, "slow", 0.2))
        attempt.exit(1)
        assert attempt.post(DeadlinePassed("slow 1")) == []

    def test_nobody_is_slow_to_stop(self, attempt: Attempt) -> None:
        attempt.post(FaultOrdered(1, "slow", 0.2))
        attempt.post(Signalled(2))
        assert attempt.post(DeadlinePassed("slow 1")) == []


class TestOthers:
    def test_they_are_stopped_when_a_task_fails_by_itself(self, attempt: Attempt) -> None:
        assert stops(attempt.exit(1, 1)) == [0]

    def test_they_are_left_alone_after_a_fault_to_order(self, attempt: Attempt) -> None:
        attempt.post(FaultOrdered(1, "kill"))
        assert attempt.exit(1, None, 9) == []
        assert not attempt.drill.finished
        attempt.exit(0)
        assert attempt.drill.finished
        verdict = attempt.drill.verdict()
        assert (verdict.reason, dict(verdict.fates)) == ("killed by SIGKILL", {0: "done", 1: "failed"})

    def test_they_are_left_alone_where_a_task_ends_itself(self) -> None:
        assert Attempt(Faults({1: [(5, "SIGKILL")]})).exit(1, None, 9) == []

    def test_what_is_paused_is_stopped_when_the_others_have_failed(self) -> None:
        attempt = Attempt(workers=3)
        attempt.post(FaultOrdered(1, "pause"))
        assert attempt.exit(0, 1) == []
        assert stops(attempt.exit(2, 1)) == [1]

    def test_what_has_stopped_itself_is_paused_too(self) -> None:
        attempt = Attempt(Faults({1: [(5, "SIGSTOP")]}))
        attempt.post(TaskReport(1, {"kind": "progress", "step": 4}))
        attempt.post(TaskReport(1, {"kind": "progress", "step": 6}))
        assert stops(attempt.exit(0, 1)) == [1]

    def test_what_goes_on_again_is_waited_for(self, attempt: Attempt) -> None:
        attempt.post(FaultOrdered(1, "pause"))
        attempt.post(FaultOrdered(1, "resume"))
        assert attempt.exit(0, 1) == []

    def test_servers_do_not_outlive_the_rest(self) -> None:
        attempt = Attempt(ps=1)
        attempt.post(FaultOrdered(0, "kill"))
        attempt.exit(0, None, 9)
        assert stops(attempt.exit(1, 1)) == [2]

    def test_a_second_interruption_kills_them(self, attempt: Attempt) -> None:
        attempt.post(FaultOrdered(1, "pause"))
        assert stops(attempt.post(Signalled(2))) == [0, 1]
        assert attempt.post(Signalled(2)) == [Kill(0), Kill(1)]


class TestDeadline:
    def test_all_are_asked_where_they_are_before_anybody_is_stopped(self, attempt: Attempt) -> None:
        attempt.exit(0)
        attempt.post(FaultOrdered(1, "slow", 0.2))
        asked = [AskStacks("a"), SetTimer("roll call", PATIENCE)]
        assert attempt.post(DeadlinePassed("run")) == [Signal(1, "SIGCONT"), *asked]
        assert attempt.post(DeadlinePassed("slow 1")) == []
        assert stops(attempt.post(HostCalled("a"))) == [1]
        attempt.exit(1, None, 15)
        assert attempt.drill.verdict().status == "deadline"

    def test_what_is_paused_stays_so(self, attempt: Attempt) -> None:
        attempt.post(FaultOrdered(1, "pause"))
        assert attempt.post(DeadlinePassed("run")) == [AskStacks("a"), SetTimer("roll call", PATIENCE)]
        attempt.post(TaskStacks(1, "T", ""))
        attempt.post(HostCalled("a"))
        assert attempt.drill.stacks is not None
        assert attempt.drill.stacks.lines == ("worker 0 not started yet", "worker 1 stopped by a signal")
