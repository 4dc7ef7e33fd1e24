from __future__ import annotations

import pickle
import unittest
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import UnavailableError
from launcher.outcome import Outcome, TaskOutcome
from launcher.placement import Task
from launcher.stacks import Report
from launcher.testing import Ended, TaskFailed, Unprivileged
from launcher.testing.call import Answer
from launcher.verdict import Fate, Verdict

DONE = Answer(value=pickle.dumps("done"))


def ended(tmp_path: Path, *fates: Fate, answers: tuple[Answer, ...], alike: tuple[int, ...] = ()) -> Ended:
    """A run; the first task that failed is to blame."""
    tasks = [Task(number, "worker", number, "a") for number in range(len(fates))]
    cause = next((task for task, fate in zip(tasks, fates, strict=True) if fate == "failed"), None)
    others = tuple(tasks[number] for number in alike)
    verdict = Verdict("failed" if cause else "ok", 1, cause, "ValueError: no", "", dict(enumerate(fates)), others)
    outcomes = tuple(
        TaskOutcome(task, fate, 0, None, None, tmp_path / f"{task.slug}.log")
        for task, fate in zip(tasks, fates, strict=True)
    )
    return Ended(Outcome(verdict, outcomes, tmp_path), answers)


def test_results_are_in_order(tmp_path: Path) -> None:
    answers = tuple(Answer(value=pickle.dumps(number)) for number in range(3))
    assert ended(tmp_path, "done", "done", "done", answers=answers).results() == [0, 1, 2]


def test_errors_are_the_exceptions_themselves(tmp_path: Path) -> None:
    answers = (DONE, Answer(error=pickle.dumps(ValueError("no"))))
    assert list(map(repr, ended(tmp_path, "done", "failed", answers=answers).errors())) == ["None", "ValueError('no')"]


def test_who_is_stopped_was_not_to_return(tmp_path: Path) -> None:
    assert ended(tmp_path, "done", "stopped", answers=(DONE, Answer())).results() == ["done", None]


def test_who_was_to_return_and_did_not_has_failed(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match=r"^worker 1 ended without returning\n"):
        ended(tmp_path, "done", "done", answers=(DONE, Answer())).results()


def test_the_story_begins_with_the_cause(tmp_path: Path) -> None:
    answers = (Answer(traceback="T0\nUnavailableError"), DONE, Answer(traceback="T2\nValueError: no\n"))
    story = ended(tmp_path, "victim", "done", "failed", answers=answers).story().splitlines()
    assert story == [
        "worker 2 failed first: ValueError: no",
        *("", "worker 2:", "  T2", "  ValueError: no"),
        *("", "worker 0, failed because of it:", "  T0", "  UnavailableError"),
        *("", f"logs in {tmp_path}"),
    ]


def test_who_made_the_same_mistake_is_named_alone(tmp_path: Path) -> None:
    answers = (Answer(traceback="T"), Answer(traceback="T"))
    story = ended(tmp_path, "failed", "failed", answers=answers, alike=(1,)).story()
    assert story.startswith("worker 0 failed first (so did worker 1): ValueError: no\n")
    assert story.count("  T") == 1


def test_what_was_said_is_not_said_again(tmp_path: Path) -> None:
    answers = (Answer(traceback="T"), Answer(traceback="T"))
    assert "worker 1, failed because of it:\n  the same as worker 0" in (
        ended(tmp_path, "failed", "victim", answers=answers).story()
    )


def test_who_left_no_traceback_has_last_lines(tmp_path: Path) -> None:
    (tmp_path / "worker-0.log").write_text("step 1\nstep 2\n")
    run = ended(tmp_path, "failed", answers=(Answer(),))
    assert "worker 0:\n  step 1\n  step 2\n" in run.story()
    assert run.outputs == ("step 1\nstep 2\n",)


def test_after_a_deadline_all_stacks_are_told(tmp_path: Path) -> None:
    run = ended(tmp_path, "failed", answers=(Answer(traceback="T"),))
    outcome = replace(
        run.outcome, stacks=Report(("worker 0 in hang (t.py:4)",), "worker 0:\n  main thread\n    File\n")
    )
    assert replace(run, outcome=outcome).story().splitlines()[1:6] == [
        *("", "worker 0:", "  main thread", "    File"),
        "",
    ]


def test_what_the_system_does_not_allow_skips_the_test(tmp_path: Path) -> None:
    with pytest.raises(Unprivileged, match="no disk") as found:
        ended(tmp_path, "failed", answers=(Answer(unprivileged="no disk"),)).results()
    assert isinstance(found.value, unittest.SkipTest)
    assert isinstance(found.value, UnavailableError)
