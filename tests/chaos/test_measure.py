from __future__ import annotations

from typing import Any

from tests.chaos.grid import Case
from tests.chaos.measure import Times, table, times

KILLED = Case("steps", "SIGKILL", "worker", "step", 4)
LOST = Case("steps", "SIGKILL", "loop", "step", 4)


def progress(time: float, step: int) -> dict[str, Any]:
    return {"time": time, "event": "TaskReport", "task": 0, "record": {"kind": "progress", "time": time, "step": step}}


def happened(time: float, event: str, **fields: object) -> dict[str, Any]:
    return {"time": time, "event": event, **fields}


def test_what_was_heard_of_the_victim_and_the_next_step_that_is_new() -> None:
    events = [
        *(progress(9.0, 3), progress(10.0, 4)),
        *(happened(10.75, "TaskExited", task=1), happened(10.9, "TaskExited", task=0)),
        *(progress(12.0, 4), progress(12.5, 5), progress(13.0, 6)),
    ]
    assert times(KILLED, events, 10.5) == Times(0.25, 2.0)


def test_an_agent_is_heard_of_by_its_loss() -> None:
    events = [happened(10.5, "TaskReport", task=1, record={}), happened(11.0, "AgentLost", host="a")]
    assert times(LOST, events, 10.0) == Times(1.0, None)


def test_the_table_has_medians_and_what_ends_otherwise() -> None:
    stopped = Case("first step", "SIGTERM", "worker", "step")
    chief = KILLED._replace(victim="chief")
    measured = [(KILLED, Times(0.1, 2.0)), (chief, Times(0.3, 4.0)), (LOST, Times(0.02, 6.0))]
    made = table([*measured, (stopped, Times(0.5, None))]).splitlines()
    assert made[0] == "| fault, to a | start-up | join | first step | steps | checkpoint | finishing |"
    assert made[2] == "| SIGKILL, worker |  |  |  | 0.20 → 3.0 |  |  |"
    assert made[3] == "| SIGTERM, worker |  |  | 0.50 stops |  |  |  |"
    assert made[4] == "| SIGKILL, agent |  |  |  | 0.02 → 6.0 |  |  |"
