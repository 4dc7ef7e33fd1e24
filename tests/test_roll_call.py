from __future__ import annotations

import pytest

from launcher.events import TaskStacks
from launcher.placement import Task
from launcher.roll_call import RollCall
from launcher.stacks import SILENT, UNFORKED, UNSTARTED

TASKS = [Task(0, "worker", 0, "a"), Task(1, "worker", 1, "a"), Task(2, "worker", 2, "b")]


@pytest.fixture
def call() -> RollCall:
    return RollCall(TASKS)


def test_each_host_is_asked_once(call: RollCall) -> None:
    assert call.ask() == ["a", "b"]
    assert call.ask() == []


def test_it_is_complete_when_all_hosts_are_through(call: RollCall) -> None:
    for host in ("a", "nobody asked", "b"):
        assert not call.complete
        call.hear(host)
    assert call.complete
    assert RollCall([]).complete


def test_who_does_not_answer_is_told_apart(call: RollCall) -> None:
    call.take(TaskStacks(1, "S", "where it is"))
    call.hear("a")
    assert [(one.label, one.state, one.text) for one in call.answers()] == [
        ("worker 0", UNSTARTED, ""),
        ("worker 1", "S", "where it is"),
        ("worker 2", SILENT, ""),
    ]
    assert [one.label for one in call.answers(TASKS[1:2])] == ["worker 1"]
    warm = RollCall(TASKS[:2], {1})
    warm.hear("a")
    assert [one.state for one in warm.answers()] == [UNSTARTED, UNFORKED]


def test_who_has_ended_is_gone_unless_it_has_told_before(call: RollCall) -> None:
    call.take(TaskStacks(0, "S", "where it was"))
    call.take(TaskStacks(1, "S", ""))
    call.close([0, 1, 2])
    assert [(one.state, one.text) for one in call.answers()] == [("S", "where it was"), ("", ""), ("", "")]
