from __future__ import annotations

import errno
from typing import Any

import pytest

from launcher.events import TaskExited
from launcher.placement import Task
from launcher.verdict import Ending, Fate, Interruption, Verdict, explain, judge


def ending(
    number: int = 0,
    status: int | None = 0,
    signal: int | None = None,
    *,
    at: float = 10.0,
    sent: tuple[str, ...] = (),
    error: dict[str, Any] | None = None,
    job: str = "worker",
    oom: bool = False,
    core: bool = False,
) -> Ending:
    """How a task ended: with a status, unless a signal ended it."""
    exited = TaskExited(number, None if signal else status, signal, core, oom, sent, 3 << 30, at)
    return Ending(Task(number, job, number, f"h{number}"), exited, error)


def lost(number: int, why: str = "killed by SIGKILL", *, at: float = 0.0) -> Ending:
    return Ending(Task(number, "worker", number, f"h{number}"), lost=why, lost_at=at)


def raised(at: float, message: str = "bad", **more: Any) -> dict[str, Any]:
    return {"kind": "error", "type": "ValueError", "message": message, "time": at, **more}


def echo(at: float, **more: Any) -> dict[str, Any]:
    return {**raised(at, "Socket closed"), "type": "UnavailableError", "victim": True, **more}


def stopped(number: int, signal: int = 15, at: float = 11.0) -> Ending:
    sent = ("SIGTERM", "SIGCONT") if signal == 15 else ("SIGTERM", "SIGCONT", "SIGKILL")
    return ending(number, signal=signal, at=at, sent=sent)


def fates(verdict: Verdict) -> list[Fate]:
    return [verdict.fates[number] for number in sorted(verdict.fates)]


class TestCause:
    def test_all_is_well(self) -> None:
        verdict = judge([ending(0), ending(1)])
        assert verdict == Verdict("ok", 0, None, "all tasks are done", "", {0: "done", 1: "done"})

    def test_the_first_to_fail_is_the_cause(self) -> None:
        verdict = judge([ending(0, 1, at=12.0), ending(1, 3, at=11.9999), ending(2)])
        assert verdict.cause == Task(1, "worker", 1, "h1")
        assert (verdict.status, verdict.exit_status, verdict.reason) == ("failed", 3, "exited with status 3")
        assert fates(verdict) == ["failed", "failed", "done"]

    def test_the_time_of_the_error_counts_and_not_the_time_of_the_exit(self) -> None:
        first = ending(0, 1, at=30.0, error=raised(10.0, "the cause"))
        second = ending(1, 1, at=20.0, error=raised(11.0, "another"))
        assert judge([second, first]).reason == "ValueError: the cause"

    def test_an_exit_of_which_nothing_was_reported_counts_by_its_own_time(self) -> None:
        assert judge([ending(0, 1, at=12.0, error=raised(11.0)), ending(1, signal=9, at=10.5)]).exit_status == 137

    def test_an_error_without_a_usable_time_counts_by_the_exit(self) -> None:
        untimed = ending(0, 1, at=10.0, error={"kind": "error", "type": "E", "message": "m", "time": None})
        assert judge([ending(1, 2, at=11.0), untimed]).exit_status == 1

    def test_victims_are_not_the_cause_though_they_failed_earlier(self) -> None:
        verdict = judge([ending(0, 1, at=10.0, error=echo(10.0)), ending(1, signal=9, at=10.2)])
        assert verdict.cause == Task(1, "worker", 1, "h1")
        assert fates(verdict) == ["victim", "failed"]

    def test_the_first_victim_is_blamed_when_nobody_else_can_be(self) -> None:
        verdict = judge([ending(0, 7, error=echo(12.0)), ending(1, 8, error=echo(11.0))])
        assert (verdict.exit_status, verdict.reason) == (8, "UnavailableError: Socket closed")

    def test_what_the_launcher_stopped_is_never_blamed(self) -> None:
        early = stopped(0, at=1.0)
        verdict = judge([early, stopped(1, signal=9, at=2.0), ending(2, 5, at=10.0)])
        assert (verdict.cause, verdict.exit_status) == (Task(2, "worker", 2, "h2"), 5)
        assert fates(verdict) == ["stopped", "stopped", "failed"]

    @pytest.mark.parametrize("status", [1, 143])
    def test_a_worker_that_turns_our_signal_into_a_status_was_stopped(self, status: int) -> None:
        verdict = judge([ending(0, status, sent=("SIGTERM", "SIGCONT"), at=1.0), ending(1, 5)])
        assert (verdict.exit_status, fates(verdict)) == (5, ["stopped", "failed"])

    def test_a_worker_that_fails_at_being_stopped_was_stopped(self) -> None:
        late = ending(0, 1, sent=("SIGTERM",), error=raised(9.0, after_stop=True))
        verdict = judge([late, ending(1, 5, at=10.0)])
        assert (verdict.exit_status, fates(verdict)) == (5, ["stopped", "failed"])

    def test_a_worker_that_had_failed_before_it_was_stopped_did_fail(self) -> None:
        hanging = ending(0, signal=9, sent=("SIGTERM", "SIGCONT", "SIGKILL"), at=40.0, error=raised(9.0))
        verdict = judge([hanging, ending(1, 1, at=10.0, error=echo(9.5))])
        assert (verdict.cause, verdict.exit_status) == (Task(0, "worker", 0, "h0"), 1)
        assert verdict.reason == "ValueError: bad"

    def test_a_worker_that_obeys_and_ends_well_is_done(self) -> None:
        assert fates(judge([ending(0, 0, sent=("SIGTERM", "SIGCONT")), ending(1, 5)])) == ["done", "failed"]

    def test_an_error_that_did_not_keep_a_worker_from_ending_well_is_none(self) -> None:
        assert judge([ending(0, 0, error=raised(9.0))]).status == "ok"

    def test_others_that_say_the_same_are_alike(self) -> None:
        verdict = judge([
            ending(0, 1, error=raised(10.0)),
            ending(1, 1, error=raised(11.0)),
            ending(2, 1, error=raised(12.0, "other")),
            stopped(3),
        ])  # fmt: skip
        assert verdict.cause is not None
        assert ([task.number for task in verdict.alike], verdict.cause.number) == ([1], 0)

    def test_an_evaluator_is_the_cause_only_when_no_member_of_the_cluster_failed(self) -> None:
        evaluator = ending(2, 3, at=1.0, job="evaluator")
        assert judge([ending(0, 5, at=9.0), stopped(1), evaluator]).exit_status == 5
        assert judge([ending(0), ending(1), evaluator]).exit_status == 3

    def test_a_cause_that_was_still_on_its_way_out_when_it_was_stopped(self) -> None:
        late = ending(0, signal=15, at=12.0, sent=("SIGTERM", "SIGCONT"), error={**raised(9.0), "after_stop": False})
        assert judge([late, ending(1, 3, at=10.0)]).exit_status == 1
        leaving = {"kind": "exit", "status": 7, "text": "", "time": 9.0, "after_stop": False}
        verdict = judge(
            [ending(0, signal=15, at=12.0, sent=("SIGTERM",), error=leaving), ending(1, 7, at=10.0, error=leaving)]
        )
        assert (verdict.exit_status, verdict.reason, len(verdict.alike)) == (7, "exited with status 7", 1)


class TestInterruption:
    def test_a_signal(self) -> None:
        verdict = judge([stopped(0), stopped(1)], Interruption(10.0, signal=2))
        assert (verdict.status, verdict.exit_status, verdict.cause) == ("interrupted", 130, None)
        assert verdict.reason == "interrupted by SIGINT"
        assert fates(verdict) == ["stopped", "stopped"]

    def test_sigterm(self) -> None:
        assert judge([stopped(0)], Interruption(10.0, signal=15)).exit_status == 143

    def test_the_deadline(self) -> None:
        verdict = judge([stopped(0)], Interruption(10.0, timeout=90.0))
        assert (verdict.status, verdict.exit_status) == ("deadline", 124)
        assert verdict.reason == "the run's deadline of 90 s passed"
        assert "--timeout" in verdict.hint

    @pytest.mark.parametrize("interruption", [Interruption(10.0, signal=2), Interruption(10.0, timeout=1.0)])
    def test_it_hides_no_failure_that_came_before(self, interruption: Interruption) -> None:
        verdict = judge([ending(0, 1, at=20.0, error=raised(9.9)), stopped(1)], interruption)
        assert (verdict.status, verdict.exit_status) == ("failed", 1)

    def test_it_explains_what_failed_after_it(self) -> None:
        verdict = judge([ending(0, 1, at=10.1, sent=("SIGTERM",)), ending(1, 6, at=10.2)], Interruption(10.0, signal=2))
        assert verdict.exit_status == 130

    def test_workers_that_all_ended_well_do_not_undo_it(self) -> None:
        assert judge([ending(0, 0, sent=("SIGTERM",))], Interruption(10.0, signal=2)).exit_status == 130


class TestLostHosts:
    def test_a_lost_host_is_to_blame_and_no_worker(self) -> None:
        verdict = judge([lost(0), stopped(1)])
        assert (verdict.status, verdict.exit_status, verdict.cause) == ("unavailable", 69, None)
        assert verdict.reason == "the agent on h0 was lost: killed by SIGKILL"
        assert fates(verdict) == ["lost", "stopped"]

    def test_its_peers_are_victims(self) -> None:
        verdict = judge([ending(0, 1, error=echo(9.0)), lost(1)])
        assert (verdict.exit_status, fates(verdict)) == (69, ["victim", "lost"])

    def test_a_worker_that_failed_on_its_own_account_is_blamed_all_the_same(self) -> None:
        verdict = judge([ending(0, 4), lost(1)])
        assert (verdict.status, verdict.exit_status, fates(verdict)) == ("failed", 4, ["failed", "lost"])

    def test_what_was_killed_a_moment_before_is_no_cause(self) -> None:
        evaluator = ending(3, signal=9, at=12.0, job="evaluator")
        verdict = judge([ending(0, signal=9, at=12.0), stopped(1), lost(2, at=12.5), evaluator])
        assert (verdict.status, verdict.exit_status, verdict.cause) == ("unavailable", 69, None)
        assert verdict.reason == "the agent on h2 was lost: killed by SIGKILL"
        assert fates(verdict) == ["lost", "stopped", "lost", "lost"]

    @pytest.mark.parametrize(
        "killed",
        [
            ending(0, signal=9, at=12.0),
            ending(0, signal=9, at=41.0, oom=True),
            ending(0, signal=9, at=41.0, error=raised(40.9)),
            ending(0, signal=9, at=41.0, sent=("SIGTERM", "SIGCONT", "SIGKILL"))._replace(stopped=10.0),
            ending(0, signal=11, at=41.0),
        ],
        ids=["long before", "for its memory", "after it raised", "after it was stopped", "by another signal"],
    )
    def test_what_ended_otherwise_is(self, killed: Ending) -> None:
        verdict = judge([killed, lost(1, at=41.5)])
        assert (verdict.status, fates(verdict)) == ("failed", ["failed", "lost"])
        assert verdict.cause is killed.task


class TestNetwork:
    def test_it_is_to_blame_where_packets_went_unanswered_and_nobody_failed(self) -> None:
        endings = [ending(number, 1, error=echo(9.0 + number)) for number in range(3)]
        endings[2] = endings[2]._replace(unanswered=(0,))
        verdict = judge(endings)
        assert (verdict.status, verdict.exit_status, verdict.cause) == ("unavailable", 69, None)
        assert verdict.reason == "worker 0 on h0 and worker 2 on h2 could not reach each other"
        assert fates(verdict) == ["victim"] * 3

    def test_a_task_that_failed_by_itself_is_blamed_all_the_same(self) -> None:
        cut = ending(1, 1, error=echo(9.0))._replace(unanswered=(0,))
        assert judge([ending(0, signal=9, at=10.0), cut]).exit_status == 137

    def test_a_deadline_tells_what_it_was_that_took_so_long(self) -> None:
        verdict = judge([stopped(0), stopped(1)._replace(unanswered=(0,))], Interruption(10.0, timeout=90.0))
        assert (verdict.status, verdict.exit_status) == ("deadline", 124)
        assert verdict.reason.startswith(
            "the run's deadline of 90 s passed: worker 0 on h0 and worker 1 on h1 could not"
        )

    def test_so_does_a_hang(self) -> None:
        waiting = [stopped(0), stopped(1)._replace(unanswered=(0,))]
        verdict = judge(waiting, Interruption(10.0, hung="no step for 600 s"))
        assert verdict.status == "hung"
        assert verdict.reason.startswith("no step for 600 s: worker 0 on h0 and worker 1 on h1 could not reach")
        assert verdict.hint.startswith("look at the network between h0 and h1")


class TestFates:
    def test_a_task_that_was_never_seen_to_start(self) -> None:
        idle = Ending(Task(1, "worker", 1, "h1"))
        assert fates(judge([ending(0, 1), idle])) == ["failed", "not started"]


class TestExitStatus:
    @pytest.mark.parametrize(
        ("end", "expected"),
        [
            (ending(status=1), 1),
            (ending(status=255), 255),
            (ending(signal=9), 137),
            (ending(signal=11), 139),
            (ending(signal=6, error=raised(9.0)), 134),
        ],
    )
    def test_it_is_that_of_the_cause(self, end: Ending, expected: int) -> None:
        assert judge([end]).exit_status == expected


class TestExplain:
    @pytest.mark.parametrize(
        ("end", "expected"),
        [
            (ending(status=3), "exited with status 3"),
            (ending(signal=9), "killed by SIGKILL"),
            (ending(signal=11, core=True), "killed by SIGSEGV, core dumped"),
            (ending(signal=63), "killed by signal 63"),
            (ending(signal=9, oom=True), "killed by the kernel: out of memory (it held 3.0 GiB at its peak)"),
            (Ending(Task(0, "worker", 0, "h0")), "was never started"),
            (ending(status=1, error=raised(9.0)), "ValueError: bad"),
            (ending(status=1, error=raised(9.0, "")), "ValueError"),
            (ending(status=1, error=raised(9.0, "one\ntwo")), "ValueError: one"),
            (ending(status=1, error=raised(9.0, where="train.py:3")), "ValueError: bad (train.py:3)"),
            (ending(status=1, error={"kind": "exit", "text": "no data\nat all"}), "exited: no data"),
            (ending(status=4, error={"kind": "exit", "text": None}), "exited with status 4"),
            (
                ending(status=127, error={"kind": "not-started", "step": "run x", "error": "No such file"}),
                "could not run x: No such file",
            ),
        ],
    )
    def test_in_one_line(self, end: Ending, expected: str) -> None:
        assert explain(end) == expected


class TestHint:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (
                {"kind": "error", "type": "ModuleNotFoundError", "message": "No module named 'tensorflow'"},
                "pip install",
            ),
            ({"kind": "not-started", "step": "run x", "error": "", "errno": errno.ENOENT}, "check the program's name"),
            ({"kind": "not-started", "step": "run x", "error": "", "errno": errno.EACCES}, "chmod +x"),
        ],
    )
    def test_what_to_do(self, error: dict[str, Any], expected: str) -> None:
        assert expected in judge([ending(status=1, error=error)]).hint

    def test_none_where_we_know_no_better(self) -> None:
        assert judge([ending(status=1, error=raised(9.0))]).hint == ""
