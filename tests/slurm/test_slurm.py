"""Runs in the allocations of a real Slurm."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slurm.conftest import Site

pytestmark = pytest.mark.timeout(120)


def test_hosts_and_tasks_are_those_of_the_allocation(site: Site) -> None:
    ended = site.run("sh", "-c", "echo $SLURMD_NODENAME; echo $TF_CONFIG", salloc=("-N3", "-n4"))
    assert ended.status == 0, ended.err
    words = [line.partition("| ")[2] for line in ended.lines]
    assert sorted(word for word in words if word.startswith("n")) == ["n1", "n1", "n2", "n3"]
    workers = json.loads(next(word for word in words if word.startswith("{")))["cluster"]["worker"]
    assert [place.partition(":")[0] for place in workers] == ["10.77.0.1", "10.77.0.1", "10.77.0.2", "10.77.0.3"]


def test_the_launcher_is_killed(site: Site) -> None:
    run = site.start("sh", "-c", "echo up; sleep 600", salloc=("-N2",))
    run.until("up", times=2)
    site.tell("tflaunch", signal.SIGKILL)
    site.nothing_is_left()
    run.end()
