from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from launcher import halts
from launcher import plan as plan_module
from launcher.commands import (
    AskStacks,
    AskWhoListens,
    Command,
    KeepStacks,
    Kill,
    Say,
    SetTimer,
    ShowStacks,
    Spawn,
    Stop,
)
from launcher.config import ClusterConfig, HostSpec, Program
from launcher.events import (
    AgentFault,
    AgentLost,
    DeadlinePassed,
    Event,
    HostCalled,
    HostTerminated,
    PortsListening,
    Signalled,
    StacksAsked,
    StopAsked,
    TaskExited,
    TaskOutput,
    TaskReport,
    TaskResumed,
    TaskStacks,
    TaskStarted,
    TaskStopped,
)
from launcher.joining import JOIN
from launcher.placement import Host, place
from launcher.pulse import HANG
from launcher.roll_call import PATIENCE
from launcher.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE = 7.0
WAITING = 'Current thread 0x1 (most recent call first):\n  File "/home/me/train.py", line 3 in wait\n'


class Run:
    """A supervisor with a clock that goes on by a second with every event."""

    def __init__(self, hosts: tuple[str, ...] = ("a",), workers: int = 2, **settings: Any) -> None:
        specs = tuple(HostSpec(host) for host in hosts)
        config = ClusterConfig(
            command=Program(("true",)), name="t", engine="x", hosts=specs, workers=workers, grace=GRACE, **settings
        )
        found = [Host(host) for host in hosts]
        tasks = place(config, found)
        ports = {task.number: 20000 + task.number for task in tasks if task.is_dialled}
        self.plan = plan_module.make(config, tasks, found, "py", {}, run="t-1", ports=ports)
        self.supervisor = Supervisor(self.plan)
        self.now = 1000.0
        self.started = self.supervisor.start()

    def post(self, event: Event) -> list[Command]:
        self.now += 1
        return self.supervisor.handle(event, self.now)

    def until_called(self, event: Event) -> list[Command]:
        """What comes of an event once all hosts have answered, where it has them asked who is where."""
        commands = self.post(event)
        for asked in [command for command in commands if isinstance(command, AskStacks)]:
            commands += self.post(HostCalled(asked.host))
        return commands

    def exit(self, task: int, status: int = 0, *sent: str) -> list[Command]:
        return self.post(TaskExited(task, status, None, False, False, sent, 0, self.now + 1))

    def die(self, task: int, signal: int, *sent: str) -> list[Command]:
        return self.post(TaskExited(task, None, signal, False, False, sent, 0, self.now + 1))

    def report(self, task: int, **record: Any) -> list[Command]:
        return self.post(TaskReport(task, record))

    def number(self, label: str) -> int:
        return next(task.number for task in self.plan.tasks if task.label == label)


def stops(commands: list[Command]) -> list[int]:
    return [task for command in commands if isinstance(command, Stop) for task in command.tasks]


class TestStart:
    def test_every_task_is_spawned(self) -> None:
        assert Run(workers=3).started == [Spawn(0), Spawn(1), Spawn(2), SetTimer("join", JOIN)]

    def test_a_run_with_a_deadline_has_a_timer(self) -> None:
        assert Run(workers=1, timeout=90.0).started == [Spawn(0), SetTimer("run", 90.0)]

    def test_it_is_not_finished(self) -> None:
        assert not Run().supervisor.finished

    def test_why_it_is_cold_is_said_once(self) -> None:
        run = Run(workers=3)
        said = [run.report(task, kind="cold", why=why) for task, why in ((0, "a"), (1, "a"), (2, "b"))]
        assert said == [[Say("starting cold: a")], [], [Say("starting cold: b")]]


class TestSuccess:
    def test_when_all_workers_are_done(self) -> None:
        run = Run()
        assert run.exit(0) == []
        assert not run.supervisor.finished
        assert run.exit(1) == []
        assert run.supervisor.finished
        assert run.supervisor.verdict().status == "ok"
        assert {number: end.status for number, end in run.supervisor.exits().items()} == {0: 0, 1: 0}

    def test_servers_are_stopped_and_an_evaluator_may_finish(self) -> None:
        run = Run(workers=1, ps=1, evaluator=1)
        worker, server, evaluator = map(run.number, ("worker 0", "ps 0", "evaluator 0"))
        assert run.exit(worker) == [Stop((server,), GRACE), SetTimer("afterwards", GRACE)]
        assert run.die(server, 15, "SIGTERM") == []
        assert run.exit(evaluator) == []
        assert run.supervisor.finished
        assert run.supervisor.verdict().status == "ok"

    def test_an_evaluator_that_does_not_finish_is_stopped(self) -> None:
        run = Run(workers=1, evaluator=1)
        run.exit(0)
        assert run.post(DeadlinePassed("afterwards")) == [Stop((1,), GRACE)]
        assert run.post(DeadlinePassed("afterwards")) == []
        run.die(1, 15, "SIGTERM", "SIGCONT")
        assert run.supervisor.finished
        assert run.supervisor.verdict().status == "ok"

    def test_nobody_waits_for_an_evaluator_that_is_done(self) -> None:
        run = Run(workers=1, evaluator=1)
        assert run.exit(1) == []
        assert run.exit(0) == []
        assert run.supervisor.finished

    def test_with_parameter_servers_the_chief_decides(self) -> None:
        run = Run(workers=1, chief=1, ps=1)
        chief, worker, server = map(run.number, ("chief 0", "worker 0", "ps 0"))
        assert run.exit(chief) == [Stop((worker, server), GRACE)]
        run.die(worker, 15, "SIGTERM")
        run.die(server, 15, "SIGTERM")
        assert run.supervisor.verdict().status == "ok"


class TestStoppedByOthers:
    def test_it_is_waited_for(self) -> None:
        run = Run()
        said, timer = run.post(TaskStopped(1, 1000.5))
        assert isinstance(said, Say)
        assert "worker 1" in said.text
        assert timer == SetTimer("stopped 1", halts.PATIENCE)
        assert run.post(TaskResumed(1, 1001.5)) == [Say("worker 1 goes on")]
        assert run.post(DeadlinePassed("stopped 1")) == []
        run.exit(0)
        run.exit(1)
        assert run.supervisor.verdict().status == "ok"

    def test_one_that_does_not_go_on_is_the_cause(self) -> None:
        run = Run()
        run.post(TaskStopped(1, 1000.5))
        assert stops(run.until_called(DeadlinePassed("stopped 1"))) == [0, 1]
        assert run.post(TaskResumed(1, 1003.5)) == []
        run.die(0, 15, "SIGTERM", "SIGCONT")
        run.die(1, 15, "SIGTERM", "SIGCONT")
        verdict = run.supervisor.verdict()
        assert (verdict.status, verdict.exit_status) == ("failed", 128 + 19)
        assert verdict.cause == run.plan.tasks[1]
        assert verdict.fates == {0: "stopped", 1: "failed"}

    def test_peers_that_do_not_wait_so_long_are_its_victims(self) -> None:
        run = Run()
        run.post(TaskStopped(1, 1000.5))
        run.report(0, kind="error", type="UnavailableError", message="gone", victim=True, time=1002.0)
        run.exit(0, 1)
        run.die(1, 15, "SIGTERM", "SIGCONT")
        assert run.supervisor.verdict().cause == run.plan.tasks[1]
        assert run.supervisor.verdict().fates[0] == "victim"

    def test_whoever_interrupts_meanwhile_is_who_ended_it(self) -> None:
        run = Run()
        run.post(TaskStopped(1, 1000.5))
        run.post(Signalled(2))
        run.die(0, 15, "SIGTERM", "SIGCONT")
        run.die(1, 15, "SIGTERM", "SIGCONT")
        assert run.supervisor.verdict().exit_status == 130

    def test_training_goes_on_without_an_evaluator(self) -> None:
        run = Run(workers=1, evaluator=1)
        run.post(TaskStopped(1, 1000.5))
        assert stops(run.post(DeadlinePassed("stopped 1"))) == []


class TestHang:
    def test_whoever_tells_of_progress_is_watched(self) -> None:
        run = Run()
        assert run.report(0, kind="progress", step=1) == [SetTimer("hang", HANG)]
        assert run.report(1, kind="progress", step=1) == []
        assert run.post(DeadlinePassed("hang")) == [SetTimer("hang", HANG - 1)]
        said, *rest = run.until_called(DeadlinePassed("hang"))
        assert said == Say("no task has made progress for 600 s, after step 1")
        assert stops(rest) == [0, 1]
        for task in (0, 1):
            run.die(task, 15, "SIGTERM", "SIGCONT")
        verdict = run.supervisor.verdict()
        assert (verdict.status, verdict.exit_status, verdict.cause) == ("hung", 124, None)
        assert run.supervisor.attempt().step == 1

    def test_nobody_else_is(self) -> None:
        run = Run()
        assert run.report(0, kind="state", state="started") == []
        assert run.post(DeadlinePassed("hang")) == []

    def test_what_was_asked_for_counts_output_where_there_is_no_progress(self) -> None:
        run = Run(hang_deadline=50.0)
        assert run.started[-1] == SetTimer("hang", 50)
        run.supervisor.pulse.spoke = True
        assert run.post(DeadlinePassed("hang")) == [SetTimer("hang", 50)]
        assert stops(run.until_called(DeadlinePassed("hang"))) == [0, 1]

    def test_output_is_no_progress_where_there_is_some(self) -> None:
        run = Run()
        run.report(0, kind="progress", step=1)
        run.supervisor.pulse.spoke = True
        assert stops(run.until_called(DeadlinePassed("hang"))) == [0, 1]

    def test_it_can_be_switched_off(self) -> None:
        run = Run(hang_deadline=0.0)
        assert run.started == [Spawn(0), Spawn(1), SetTimer("join", JOIN)]
        assert run.report(0, kind="progress", step=1) == []

    def test_an_evaluators_progress_is_its_own(self) -> None:
        run = Run(workers=1, evaluator=1)
        assert run.report(1, kind="progress", step=1) == []

    def test_a_run_that_is_ending_does_not_hang(self) -> None:
        run = Run()
        run.report(0, kind="progress", step=1)
        run.exit(0)
        run.exit(1, 3)
        assert run.post(DeadlinePassed("hang")) == []


class TestJoin:
    def test_nobody_is_waited_for_alone(self) -> None:
        assert Run(workers=1, evaluator=1).started == [Spawn(0), Spawn(1)]
        assert Run(join_deadline=0.0).started == [Spawn(0), Spawn(1)]
        assert Run(join_deadline=9.0).started[-1] == SetTimer("join", 9)

    def test_who_is_late_is_named(self) -> None:
        run = Run(workers=4)
        assert run.post(DeadlinePassed("join")) == [AskWhoListens("a")]
        assert run.post(PortsListening("a", (20000, 20002))) == [AskStacks("a"), SetTimer("roll call", PATIENCE)]
        for task, state in ((0, "S"), (1, "S"), (2, "S"), (3, "T")):
            assert run.post(TaskStacks(task, state, WAITING if state == "S" else "")) == []
        kept, said, *rest = run.post(HostCalled("a"))
        assert isinstance(kept, KeepStacks)
        doing = "worker 1 in wait() of train.py:3; worker 3 stopped by a signal"
        assert said == Say(f"worker 1, 3 did not listen for peers within 180 s: {doing}")
        assert stops(rest) == [0, 1, 2, 3]
        for task in range(4):
            run.die(task, 15, "SIGTERM")
        verdict = run.supervisor.verdict()
        assert (verdict.status, verdict.exit_status) == ("hung", 124)
        assert "--join-deadline" in verdict.hint

    def test_all_hosts_are_heard_first(self) -> None:
        run = Run(("a", "b"), workers=2)
        assert run.post(DeadlinePassed("join")) == [AskWhoListens("a"), AskWhoListens("b")]
        assert run.post(PortsListening("a", (20000,))) == []
        assert run.post(PortsListening("b", (20001,))) == []

    def test_the_port_of_another_host_is_not_its_own(self) -> None:
        run = Run(("a", "b"), workers=2)
        run.post(DeadlinePassed("join"))
        run.post(PortsListening("a", (20000, 20001)))
        assert stops(run.until_called(PortsListening("b", ()))) == [0, 1]

    def test_where_nobody_listens_nobody_waits(self) -> None:
        run = Run()
        run.post(DeadlinePassed("join"))
        assert run.post(PortsListening("a", ())) == [SetTimer("join", JOIN)]

    def test_unless_it_was_asked_for(self) -> None:
        run = Run(join_deadline=9.0)
        run.post(DeadlinePassed("join"))
        assert stops(run.until_called(PortsListening("a", ()))) == [0, 1]

    def test_who_makes_progress_has_joined(self) -> None:
        run = Run()
        run.report(0, kind="progress", step=1)
        assert run.post(DeadlinePassed("join")) == []

    def test_who_is_done_is_not_late(self) -> None:
        run = Run()
        run.exit(1)
        run.post(DeadlinePassed("join"))
        assert run.post(PortsListening("a", (20000,))) == []


class TestRollCall:
    """Before tasks are stopped for what none of them has told, they are asked where they are."""

    @pytest.fixture
    def run(self) -> Run:
        run = Run(("a", "b"), workers=3, timeout=90.0)
        assert run.post(DeadlinePassed("run")) == [AskStacks("a"), AskStacks("b"), SetTimer("roll call", PATIENCE)]
        return run

    def test_nobody_is_stopped_before_all_hosts_have_answered(self, run: Run) -> None:
        for task, host in ((0, "a"), (1, "a"), (2, "b")):
            assert run.post(TaskStacks(task, "S", WAITING)) == []
            if task == 1:
                assert run.post(HostCalled(host)) == []
        kept, *rest = run.post(HostCalled("b"))
        assert rest == [Stop((0, 1, 2), GRACE, look=True)]
        report = run.supervisor.stacks
        assert report is not None
        assert kept == KeepStacks(report)
        assert report.lines == ("worker 0-2 in wait (train.py:3)",)
        assert run.supervisor.attempt().stacks == report

    def test_a_host_that_does_not_answer_is_not_waited_for_long(self, run: Run) -> None:
        run.post(TaskStacks(2, "S", WAITING))
        run.post(HostCalled("b"))
        assert stops(run.post(DeadlinePassed("roll call"))) == [0, 1, 2]
        assert run.supervisor.stacks is not None
        assert run.supervisor.stacks.lines[0] == "worker 0-1 on a host that does not answer"
        assert run.post(HostCalled("a")) == []
        assert run.post(DeadlinePassed("roll call")) == []

    def test_a_host_that_is_lost_has_nothing_more_to_say(self, run: Run) -> None:
        run.post(HostCalled("b"))
        assert stops(run.post(AgentLost("a", "gone"))) == [2]

    def test_whoever_interrupts_does_not_wait_and_still_has_the_answers(self, run: Run) -> None:
        assert stops(run.post(Signalled(2))) == [0, 1, 2]
        run.post(TaskStacks(2, "S", WAITING))
        run.post(HostCalled("b"))
        (kept,) = run.post(HostCalled("a"))
        assert isinstance(kept, KeepStacks)

    def test_who_fails_meanwhile_is_no_cause(self, run: Run) -> None:
        assert run.exit(0, 5) == []
        for host in ("a", "b"):
            run.post(HostCalled(host))
        for task in (1, 2):
            run.die(task, 15, "SIGTERM", "SIGCONT")
        assert (run.supervisor.verdict().status, run.supervisor.verdict().cause) == ("deadline", None)

    def test_when_all_have_ended_it_is_over(self, run: Run) -> None:
        run.post(TaskStacks(0, "S", WAITING))
        run.exit(0)
        run.exit(1)
        (kept,) = run.exit(2)
        assert isinstance(kept, KeepStacks)
        assert kept.report.lines == ("worker 0 in wait (train.py:3)", "worker 1-2 gone")

    def test_nobody_is_asked_who_has_been_told_to_stop(self) -> None:
        run = Run(timeout=90.0)
        run.post(Signalled(2))
        assert run.post(DeadlinePassed("run")) == []

    def test_somebody_wants_to_know(self) -> None:
        run = Run()
        assert run.post(StacksAsked()) == [AskStacks("a"), SetTimer("roll call", PATIENCE)]
        assert run.post(StacksAsked()) == []
        run.post(TaskStacks(1, "S", WAITING))
        (shown,) = run.post(HostCalled("a"))
        assert isinstance(shown, ShowStacks)
        assert shown.report.lines == ("worker 0 not started yet", "worker 1 in wait (train.py:3)")
        assert run.supervisor.stacks is None
        assert run.exit(0) == []

    def test_what_somebody_wants_to_know_serves_before_a_stop_too(self) -> None:
        run = Run(timeout=90.0)
        run.post(StacksAsked())
        assert run.post(DeadlinePassed("run")) == []
        shown, kept, *rest = run.post(HostCalled("a"))
        assert isinstance(shown, ShowStacks)
        assert isinstance(kept, KeepStacks)
        assert stops(rest) == [0, 1]


class TestPreemption:
    def test_of_a_worker(self) -> None:
        run = Run()
        for task in (1, 0):
            run.report(task, kind="preempted", step=1200, saved=True)
            run.report(task, kind="exit", status=143, text="as SIGTERM asked")
            run.exit(task, 143)
        verdict = run.supervisor.verdict()
        assert (verdict.status, verdict.exit_status, verdict.cause) == ("interrupted", 143, None)
        assert verdict.hint == "step 1,200 is saved: run it again to go on from there"

    def test_of_a_host(self) -> None:
        run = Run()
        said, *rest = run.post(HostTerminated("a"))
        assert said == Say("a was told to end: stopping all")
        assert stops(rest) == [0, 1]
        for task in (0, 1):
            run.report(task, kind="preempted", step=7, saved=False)
            run.exit(task, 143, "SIGTERM", "SIGCONT")
        verdict = run.supervisor.verdict()
        assert (verdict.status, verdict.exit_status) == ("interrupted", 143)
        assert "a was told to end" in verdict.reason
        assert verdict.hint.startswith("nothing new was saved")

    def test_a_failure_before_it_is_still_the_cause(self) -> None:
        run = Run()
        run.report(0, kind="preempted", step=7, saved=True)
        run.die(1, 11)
        run.exit(0, 143, "SIGTERM")
        assert run.supervisor.verdict().exit_status == 139


class TestFailure:
    def test_the_others_are_stopped_each_once(self) -> None:
        run = Run(workers=3)
        assert run.exit(1, 5) == [Stop((0, 2), GRACE, look=True)]
        assert run.die(0, 15, "SIGTERM", "SIGCONT") == []
        assert run.die(2, 9, "SIGTERM", "SIGCONT", "SIGKILL") == []
        verdict = run.supervisor.verdict()
        assert (verdict.exit_status, verdict.cause) == (5, run.plan.tasks[1])
        assert verdict.fates == {0: "stopped", 1: "failed", 2: "stopped"}

    def test_a_signal_that_nobody_here_sent_is_a_failure(self) -> None:
        run = Run()
        assert run.die(0, 9) == [Stop((1,), GRACE)]
        run.die(1, 15, "SIGTERM")
        assert run.supervisor.verdict().exit_status == 137

    def test_a_server_that_fails_takes_the_run_along(self) -> None:
        run = Run(workers=1, chief=1, ps=1)
        assert stops(run.exit(run.number("ps 0"), 1)) == [run.number("chief 0"), run.number("worker 0")]

    def test_training_goes_on_without_the_evaluator(self) -> None:
        run = Run(workers=1, evaluator=1)
        (said,) = run.exit(1, 3)
        assert isinstance(said, Say)
        assert said.text == "evaluator 0 failed; training goes on without it"
        assert run.exit(0) == []
        assert run.supervisor.finished
        assert (run.supervisor.verdict().exit_status, run.supervisor.verdict().cause) == (3, run.plan.tasks[1])

    def test_what_a_worker_reports_after_it_was_told_to_stop_is_no_cause(self) -> None:
        run = Run()
        run.exit(0, 5)
        run.report(1, kind="error", type="E", message="m", time=run.now + 0.5)
        run.exit(1, 1, "SIGTERM", "SIGCONT")
        verdict = run.supervisor.verdict()
        assert (verdict.exit_status, verdict.fates[1]) == (5, "stopped")

    def test_what_a_worker_raised_before_counts_though_it_arrives_late(self) -> None:
        run = Run()
        raised = run.now + 0.5
        run.exit(0, 5)
        run.report(1, kind="error", type="E", message="the cause", time=raised)
        run.exit(1, 1, "SIGTERM", "SIGCONT")
        verdict = run.supervisor.verdict()
        assert (verdict.exit_status, verdict.reason) == (1, "E: the cause")

    @pytest.mark.parametrize("kind", ["progress", "state", "checkpoint"])
    def test_other_records_are_no_errors(self, kind: str) -> None:
        run = Run(workers=1)
        assert stops(run.report(0, kind=kind, type="E", message="m", time=run.now)) == []
        run.exit(0, 4)
        assert run.supervisor.verdict().reason == "exited with status 4"

    def test_what_needs_no_answer_gets_none(self) -> None:
        run = Run()
        assert [run.post(event) for event in (TaskStarted(0, 1), TaskOutput(0, b"x"), DeadlinePassed("?"))] == [[]] * 3


class TestNetwork:
    def test_what_went_unanswered_is_kept_by_task(self) -> None:
        run = Run()
        object.__setattr__(run.supervisor.plan, "places", {"10.0.0.2:20001": 1})
        run.post(TaskReport(0, {"kind": "unanswered", "places": ["10.0.0.2:20001", "10.9.9.9:1"]}))
        run.post(TaskReport(0, {"kind": "unanswered", "places": 7}))
        assert run.supervisor._tasks[0].ending(waited=False).unanswered == (1,)


class TestSpawnFault:
    def test_the_task_failed_and_the_others_are_stopped(self) -> None:
        run = Run()
        assert run.post(AgentFault("a", "spawn", 11, "Resource temporarily unavailable", 0)) == [
            Stop((1,), GRACE, look=True)
        ]
        run.die(1, 15, "SIGTERM")
        verdict = run.supervisor.verdict()
        assert (verdict.exit_status, verdict.cause) == (127, run.plan.tasks[0])
        assert verdict.reason == "could not be started: Resource temporarily unavailable"


class TestLostHost:
    def test_the_others_are_stopped(self) -> None:
        run = Run(("a", "b"), workers=4)
        assert run.post(AgentLost("b", "killed by SIGKILL")) == [Stop((0, 1), GRACE, look=True)]
        run.die(0, 15, "SIGTERM")
        run.die(1, 15, "SIGTERM")
        assert run.supervisor.finished
        verdict = run.supervisor.verdict()
        assert (verdict.exit_status, verdict.reason) == (69, "the agent on b was lost: killed by SIGKILL")
        assert verdict.fates == {0: "stopped", 1: "stopped", 2: "lost", 3: "lost"}

    def test_what_had_ended_there_before_keeps_its_end(self) -> None:
        run = Run()
        run.exit(0)
        assert run.post(AgentLost("a", "gone")) == []
        assert run.supervisor.finished
        assert run.supervisor.verdict().fates == {0: "done", 1: "lost"}


class TestSignals:
    def test_the_first_walks_the_ladder_and_the_second_kills(self) -> None:
        run = Run()
        said, *commands = run.post(Signalled(2))
        assert said == Say("stopping 2 tasks, up to 7 s each; once more kills them")
        assert commands == [Stop((0, 1), GRACE)]
        run.die(0, 15, "SIGTERM")
        assert run.post(Signalled(2)) == [Kill(1)]
        run.die(1, 9, "SIGTERM", "SIGKILL")
        assert (run.supervisor.verdict().status, run.supervisor.verdict().exit_status) == ("interrupted", 130)

    def test_the_first_of_two_kinds_is_the_one(self) -> None:
        run = Run(workers=1)
        run.post(Signalled(15))
        run.post(Signalled(2))
        run.die(0, 9, "SIGTERM", "SIGKILL")
        assert run.supervisor.verdict().exit_status == 143

    def test_it_does_not_hide_a_failure_that_came_before(self) -> None:
        run = Run()
        run.exit(0, 5)
        assert stops(run.post(Signalled(2))) == []
        assert run.post(Signalled(2)) == [Kill(1)]
        run.die(1, 9, "SIGTERM", "SIGKILL")
        assert run.supervisor.verdict().exit_status == 5

    def test_a_worker_that_ends_well_when_told_to_stop_leaves_it_an_interruption(self) -> None:
        run = Run(workers=1)
        run.post(Signalled(2))
        assert run.exit(0, 0, "SIGTERM", "SIGCONT") == []
        assert run.supervisor.verdict().exit_status == 130


class TestDeadline:
    def test_it_stops_everything(self) -> None:
        run = Run(timeout=90.0)
        assert stops(run.until_called(DeadlinePassed("run"))) == [0, 1]
        run.die(0, 15, "SIGTERM")
        run.die(1, 15, "SIGTERM")
        verdict = run.supervisor.verdict()
        assert (verdict.status, verdict.exit_status) == ("deadline", 124)
        assert "90 s" in verdict.reason

    @pytest.mark.parametrize(
        ("first", "second", "status"),
        [
            (DeadlinePassed("run"), Signalled(2), "deadline"),
            (Signalled(2), DeadlinePassed("run"), "interrupted"),
        ],
    )
    def test_what_came_first_is_the_reason(self, first: Event, second: Event, status: str) -> None:
        run = Run(workers=1, timeout=90.0)
        run.post(first)
        run.post(second)
        run.die(0, 15, "SIGTERM")
        assert run.supervisor.verdict().status == status


class TestEndless:
    """Tasks that would run for ever: whatever stops one of them stops them all."""

    @pytest.mark.parametrize(
        "mishap",
        [
            TaskExited(1, 1, None, False, False, (), 0, 1.0),
            TaskExited(1, None, 11, True, False, (), 0, 1.0),
            AgentFault("a", "spawn", 11, "no", 1),
            AgentLost("b", "gone"),
            Signalled(2),
            DeadlinePassed("run"),
        ],
        ids=["status", "signal", "spawn fault", "lost host", "Ctrl-C", "deadline"],
    )
    @pytest.mark.parametrize("jobs", [{}, {"chief": 1, "ps": 2, "evaluator": 1}])
    def test_one_mishap_ends_them_all(self, mishap: Event, jobs: dict[str, Any]) -> None:
        run = Run(("a", "b"), workers=3, timeout=90.0, **jobs)
        for number in stops(run.until_called(mishap)):
            assert not run.supervisor.finished
            assert stops(run.die(number, 15, "SIGTERM", "SIGCONT")) == []
        assert run.supervisor.finished
        assert run.supervisor.verdict().status != "ok"

    def test_servers_and_an_evaluator_that_go_on_for_ever_do_not_keep_a_success(self) -> None:
        run = Run(workers=1, ps=2, evaluator=1)
        commands = run.exit(0)
        told = stops(commands)
        timers = [command.name for command in commands if isinstance(command, SetTimer)]
        told += [number for name in timers for number in stops(run.post(DeadlinePassed(name)))]
        for number in told:
            run.die(number, 15, "SIGTERM", "SIGCONT")
        assert run.supervisor.finished
        assert run.supervisor.verdict().status == "ok"


class TestAnyOrder:
    """Whatever happens in whatever order: the run ends, and nothing is asked of a task that is over."""

    @pytest.mark.parametrize("seed", range(200))
    def test_it_always_ends(self, seed: int) -> None:
        dice = random.Random(seed)
        jobs = {"chief": dice.randint(0, 1), "ps": dice.randint(0, 2), "evaluator": dice.randint(0, 1)}
        run = Run(("a", "b"), workers=dice.randint(1, 4), timeout=90.0, **jobs)
        for event, over in _story(dice, run):
            commands = run.post(event)
            told = stops(commands) + [command.task for command in commands if isinstance(command, Kill)]
            assert not over & set(told)
            assert len(told) == len(set(told))
        assert run.supervisor.finished
        assert set(run.supervisor.verdict().fates) == {task.number for task in run.plan.tasks}


def _story(dice: random.Random, run: Run) -> Iterator[tuple[Event, set[int]]]:
    """Random events, each with the tasks that are over once it has happened, until every task is."""
    over: set[int] = set()
    while alive := [task for task in run.plan.tasks if task.number not in over]:
        task = dice.choice(alive)
        event = _mishap(dice, run, task.number, task.host)
        if isinstance(event, AgentLost):
            over |= {one.number for one in alive if one.host == event.host}
        elif isinstance(event, TaskExited | AgentFault):
            over.add(task.number)
        yield event, over


def _mishap(dice: random.Random, run: Run, task: int, host: str) -> Event:
    sent = dice.choice([(), ("SIGTERM", "SIGCONT"), ("SIGTERM", "SIGCONT", "SIGKILL")])
    error = {"kind": "error", "type": "E", "message": "m", "time": run.now - dice.random()}
    choices: list[tuple[int, Event]] = [
        (6, TaskExited(task, 0, None, False, False, (), 0, run.now)),
        (4, TaskExited(task, dice.randint(1, 255), None, False, False, sent, 0, run.now)),
        (2, TaskExited(task, None, dice.choice([6, 9, 11, 15]), False, dice.random() < 0.5, sent, 0, run.now)),
        (3, TaskReport(task, {**error, "victim": dice.random() < 0.5})),
        (1, AgentFault(host, "spawn", 11, "no", task)),
        (1, AgentLost(host, "gone")),
        (1, Signalled(dice.choice([1, 2, 15]))),
        (1, DeadlinePassed(dice.choice(["run", "afterwards", "roll call"]))),
        (1, StacksAsked()),
        (1, TaskStacks(task, "S", WAITING)),
        (1, HostCalled(host)),
    ]
    return dice.choices([event for _, event in choices], [weight for weight, _ in choices])[0]


class TestAskedToStop:
    def test_it_is_as_a_signal_to_the_launcher(self) -> None:
        run = Run()
        assert stops(run.post(StopAsked(now=False))) == [0, 1]
        for number in range(2):
            run.die(number, 15, "SIGTERM")
        assert run.supervisor.verdict().exit_status == 143

    def test_two_who_ask_kill_nobody(self) -> None:
        run = Run()
        run.post(StopAsked(now=False))
        assert run.post(StopAsked(now=False)) == []

    @pytest.mark.parametrize("before", [None, Signalled(2), StopAsked(now=False)])
    def test_at_once(self, before: Event | None) -> None:
        run = Run()
        if before is not None:
            run.post(before)
        assert [one for one in run.post(StopAsked(now=True)) if isinstance(one, Kill)] == [Kill(0), Kill(1)]
