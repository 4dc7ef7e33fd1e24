from __future__ import annotations

from launcher.testing.faults import Faults


def test_each_task_is_told_what_concerns_it() -> None:
    faults = Faults(disks=[("/data", 0)])
    faults.at_step(5, 1, "SIGKILL")
    assert faults.by_task(["chief 0", "worker 0"]) == {
        "chief:0": {"steps": [], "disks": [("/data", 0)]},
        "worker:0": {"steps": [(5, "SIGKILL")], "disks": [("/data", 0)]},
    }


def test_what_the_supervisor_has_to_know() -> None:
    faults = Faults()
    assert (faults.deadly, faults.stops) == (False, {})
    for step in (7, 5):
        faults.at_step(step, 0, "SIGSTOP")
    assert (faults.deadly, faults.stops) == (False, {0: 5})
    faults.at_step(1, 1, "SIGKILL")
    assert (faults.deadly, faults.stops) == (True, {0: 5})
