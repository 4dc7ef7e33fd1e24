from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher import plan as plan_module
from launcher.config import ClusterConfig, HostSpec, Program
from launcher.errors import Interrupted, RequestError, UnavailableError
from launcher.events import AgentLost, TaskExited
from launcher.outcome import Outcome, TaskOutcome, conclude, failure
from launcher.placement import Host, Task, place
from launcher.restart import Try
from launcher.run_dir import RunDir
from launcher.stacks import Report
from launcher.supervisor import Supervisor
from launcher.verdict import Fate, Verdict

RUN_DIR = Path("/runs/t-1")


def create(base: Path, name: str, warn: Callable[[str], object]) -> RunDir:
    run_dir = RunDir.named(base, name, warn)
    run_dir.make()
    return run_dir


def task(index: int, job: str = "worker") -> Task:
    return Task(index, job, index, "a")


def outcome(
    fates: list[Fate],
    cause: int | None = None,
    *,
    alike: tuple[int, ...] = (),
    words: tuple[str, ...] = (),
    **more: Any,
) -> Outcome:
    tasks = tuple(TaskOutcome(task(i), fate, 1, None, 9, RUN_DIR / f"{i}.log") for i, fate in enumerate(fates))
    chosen: dict[str, Any] = {"status": "failed", "exit_status": 3, "reason": "ValueError: bad", "hint": "", **more}
    verdict = Verdict(
        cause=None if cause is None else task(cause),
        fates=dict(enumerate(fates)),
        alike=tuple(map(task, alike)),
        **chosen,
    )
    return Outcome(verdict, tasks, RUN_DIR, words)


class TestStory:
    def test_of_success(self) -> None:
        assert outcome(["done"], status="ok", exit_status=0).story() == "all done · logs in /runs/t-1"

    def test_of_a_failure(self) -> None:
        story = outcome(
            ["victim", "failed", "stopped", "stopped", "stopped", "not started"],
            cause=1,
            words=("Traceback", "ValueError: bad"),
            hint="do this",
        ).story()
        assert story.splitlines() == [
            "worker 1 failed first, on a: ValueError: bad",
            "do this",
            "its last lines:",
            "  Traceback",
            "  ValueError: bad",
            "failed because of it: worker 0",
            "stopped: worker 2-4",
            "not started: worker 5",
            "exit status 3 · logs in /runs/t-1",
        ]

    def test_of_several_that_failed_alike(self) -> None:
        story = outcome(["failed"] * 5, cause=0, alike=(1, 2, 4)).story()
        assert story.startswith("worker 0 failed first, on a (so did worker 1-2, 4): ValueError: bad")
        assert "failed too, with another error: worker 3" in story

    def test_of_one_that_said_nothing(self) -> None:
        assert "it printed nothing" in outcome(["failed"], cause=0).story()

    def test_of_an_interruption(self) -> None:
        story = outcome(["stopped"], status="interrupted", exit_status=130, reason="interrupted by SIGINT").story()
        assert story == "interrupted by SIGINT\nstopped: worker 0\nexit status 130 · logs in /runs/t-1"

    def test_of_a_hang(self) -> None:
        stacks = Report(("worker 0 in recv (train.py:9)", "worker 1 stopped by a signal"), "")
        hung = outcome(["stopped"] * 2, status="hung", exit_status=124, reason="no progress", hint="do this")
        assert replace(hung, stacks=stacks).story().splitlines()[:5] == [
            "no progress",
            "do this",
            "where everybody was (stacks.txt has all of it):",
            "  worker 0 in recv (train.py:9)",
            "  worker 1 stopped by a signal",
        ]
        assert replace(hung, stacks=stacks).as_json()["stacks"] == list(stacks.lines)

    def test_a_long_line_is_cut(self) -> None:
        assert max(map(len, outcome(["failed"], cause=0, words=("x" * 9999,)).story().splitlines())) < 500


class TestAsJson:
    def test_everything_for_a_program(self) -> None:
        shown = json.loads(json.dumps(outcome(["failed", "failed"], cause=0, alike=(1,), hint="do this").as_json()))
        assert shown.pop("tasks")[1] == {
            "task": "worker 1",
            "host": "a",
            "fate": "failed",
            "status": 1,
            "signal": None,
            "peak": 9,
            "log": "/runs/t-1/1.log",
        }
        assert shown == {
            "status": "failed",
            "exit_status": 3,
            "blame": "worker",
            "cause": "worker 0",
            "reason": "ValueError: bad",
            "hint": "do this",
            "step": None,
            "exception": "",
            "alike": ["worker 1"],
            "stacks": [],
            "restarts": [],
            "left_out": [],
        }

    @pytest.mark.parametrize(
        ("status", "cause", "blame"),
        [
            ("ok", None, "nobody"),
            ("failed", 0, "worker"),
            ("unavailable", None, "host"),
            ("interrupted", None, "caller"),
            ("deadline", None, "caller"),
        ],
    )
    def test_who_is_to_blame(self, status: str, cause: int | None, blame: str) -> None:
        assert outcome(["done"], cause=cause, status=status).as_json()["blame"] == blame


@pytest.mark.parametrize(
    ("error", "status", "exit_status", "blame"),
    [
        (RequestError("no such script: a.py", "name one"), "not started", 2, "caller"),
        (UnavailableError("no such host: a", "name one"), "not started", 69, "host"),
        (Interrupted(15), "interrupted", 143, "caller"),
        (KeyboardInterrupt(), "interrupted", 130, "caller"),
        (ZeroDivisionError("a bug"), "not started", 1, "launcher"),
    ],
)
def test_a_run_without_a_verdict(error: BaseException, status: str, exit_status: int, blame: str) -> None:
    shown = failure(error)
    assert (shown["status"], shown["exit_status"], shown["blame"]) == (status, exit_status, blame)
    assert str(shown["reason"])
    assert shown["hint"] == getattr(error, "hint", "")
    assert shown.keys() == outcome(["done"]).as_json().keys()


class TestConclude:
    @pytest.fixture
    def run_dir(self, tmp_path: Path) -> RunDir:
        return create(tmp_path, "t", pytest.fail)

    @pytest.fixture
    def supervisor(self) -> Supervisor:
        hosts = [Host("a"), Host("b")]
        specs = (HostSpec("a"), HostSpec("b"))
        config = ClusterConfig(command=Program(("true",)), name="t", engine="x", hosts=specs, workers=2)
        return Supervisor(plan_module.make(config, place(config, hosts), hosts, "py", {}, run="t-1"))

    def test_how_each_ended_and_what_the_cause_said_last(self, run_dir: RunDir, supervisor: Supervisor) -> None:
        run_dir.output("worker-0", b"".join(b"%d\n" % i for i in range(20)))
        supervisor.handle(TaskExited(0, 5, None, False, False, (), 100, 1.0), 1.0)
        supervisor.handle(TaskExited(1, None, 15, False, False, ("SIGTERM",), 200, 2.0), 2.0)
        end = conclude(supervisor.plan, supervisor, run_dir)
        assert [(one.fate, one.status, one.signal, one.peak) for one in end.tasks] == [
            ("failed", 5, None, 100),
            ("stopped", None, 15, 200),
        ]
        assert end.tasks[1].log == run_dir.log_path("worker-1")
        assert end.last_words == tuple(map(str, range(10, 20)))

    def test_a_lost_agent_has_its_last_words(self, run_dir: RunDir, supervisor: Supervisor) -> None:
        run_dir.agent_log("b").write_text("MemoryError\n")
        supervisor.handle(AgentLost("b", "it ended with status 1"), 1.0)
        supervisor.handle(TaskExited(0, None, 15, False, False, ("SIGTERM",), 200, 2.0), 2.0)
        end = conclude(supervisor.plan, supervisor, run_dir)
        assert (end.tasks[1].fate, end.tasks[1].status, end.tasks[1].peak) == ("lost", None, None)
        assert end.last_words == ("MemoryError",)
        assert "lost with its host: worker 1" in end.story()


class TestRestarts:
    BEFORE = (Try(outcome(["failed"], cause=0).verdict, step=40, stacks=Report(("worker 0 gone",), "")),)

    def test_they_are_listed(self) -> None:
        shown = replace(outcome(["done"], status="ok", exit_status=0), before=self.BEFORE)
        assert shown.as_json()["restarts"] == [
            {"attempt": 0, "cause": "worker 0", "reason": "ValueError: bad", "step": 40, "stacks": ["worker 0 gone"]}
        ]
        assert shown.story().startswith("all done after 1 restart · ")

    def test_why_there_was_no_further_one_is_told(self) -> None:
        shown = replace(outcome(["failed"], cause=0), before=self.BEFORE, enough="not starting again: so be it")
        assert "not starting again: so be it" in shown.story().splitlines()
