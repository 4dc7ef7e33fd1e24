from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launcher.events import (
    AgentFault,
    AgentLost,
    Event,
    LinkDown,
    Signalled,
    StopAsked,
    TaskExited,
    TaskReport,
    TaskResumed,
    TaskStarted,
    TaskStopped,
)
from launcher.standing import Standing
from tests.test_supervisor import Run


class Watched:
    """What stands of an attempt with two workers, and an evaluator, a second after each event."""

    def __init__(self, *events: Event) -> None:
        self.plan = Run(hosts=("a", "b"), workers=2, evaluator=1, max_restarts=2).supervisor.plan
        self.standing = Standing("t", 100.0)
        self.now = 101.0
        self.standing.begin(self.plan, (), self.now)
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        self.now += 1
        self.standing.take(event, self.now)

    @property
    def told(self) -> Any:
        return self.standing.as_json()

    @property
    def tasks(self) -> list[str]:
        return [one["state"] for one in self.told["tasks"]]


STARTED = [TaskStarted(number, 40 + number) for number in range(3)]


def ended(task: int, status: int | None = 0, signal: int | None = None) -> TaskExited:
    return TaskExited(task, status, signal, core=False, oom=False, sent=(), peak=0, time=500.0)


def progress(task: int, **record: Any) -> TaskReport:
    return TaskReport(task, {"kind": "progress", **record})


def test_before_anything_is_known() -> None:
    told: Any = Standing("t", 100.0).as_json()
    assert (told["run"], told["state"], told["since"], told["tasks"]) == ("t", "starting", 100.0, [])


def test_from_ordered_to_done() -> None:
    watched = Watched()
    assert (watched.told["state"], watched.tasks) == ("starting", ["ordered"] * 3)
    assert not watched.standing.started
    watched.take(STARTED[0])
    assert (watched.told["state"], watched.tasks) == ("running", ["running", "ordered", "ordered"])
    for event in STARTED[1:]:
        watched.take(event)
    assert watched.standing.started
    assert watched.told["tasks"][1] == {"task": "worker 1", "host": "b", "pid": 41, "state": "running", "since": 103.0}
    watched.take(TaskStopped(0, 0.0))
    assert watched.tasks[0] == "stopped"
    watched.take(TaskResumed(0, 0.0))
    for number in range(3):
        watched.take(ended(number))
    assert watched.tasks == ["done"] * 3
    assert watched.told["tasks"][0]["since"] == 500.0
    assert not watched.standing.at_work


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (ended(1, 3), "failed with 3"),
        (ended(1, None, 9), "ended by signal 9"),
        (AgentLost("b", "gone"), "lost"),
        (LinkDown("b", "cut"), "out of reach"),
        (AgentFault("b", "spawn", 2, "no", 1), "not started"),
    ],
)
def test_how_a_task_ends(event: Event, state: str) -> None:
    assert Watched(*STARTED, event).tasks[1] == state


def test_what_has_ended_is_not_lost() -> None:
    assert Watched(*STARTED, ended(1), AgentLost("b", "gone")).tasks[1] == "done"


def test_from_attempt_to_attempt() -> None:
    watched = Watched(*STARTED, *(ended(number, 1) for number in range(3)))
    assert watched.told["state"] == "restarting"
    watched.standing.begin(replace(watched.plan, attempt=1), ("b",), 600.0)
    assert (watched.told["state"], watched.told["attempt"], watched.told["max_restarts"]) == ("running", 1, 2)
    assert watched.told["left_out"] == ["b"]
    watched.standing.wind_up()
    assert watched.told["state"] == "stopping"


@pytest.mark.parametrize("event", [Signalled(15), StopAsked(now=False)])
def test_a_run_that_is_told_to_stop(event: Event) -> None:
    assert Watched(*STARTED, event).told["state"] == "stopping"


def test_how_far_it_is() -> None:
    watched = Watched(*STARTED)
    assert watched.told["progress"] is None
    watched.take(progress(2, step=1000))  # the evaluator's
    assert watched.told["progress"] is None
    watched.take(progress(0, step=10, of=500, loss=0.5, more=1))
    assert watched.told["progress"] == {"step": 10, "of": 500, "loss": 0.5, "time": watched.now, "rate": None}
    for step in range(12, 200, 2):
        watched.take(progress(0, step=step))
    assert watched.told["progress"] == {"step": 198, "time": watched.now, "rate": 2.0}
