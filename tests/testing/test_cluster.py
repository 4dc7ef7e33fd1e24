"""Clusters without pytest's fixture, as any program has them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.errors import RequestError
from launcher.testing import Clusters, TaskFailed
from tests.acceptance.conftest import gone, living
from worker import report

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Clusters]:
    with Clusters(tmp_path, workers=2) as made:
        yield made


def wait_for(path: Path) -> str:
    report("progress", step=0)
    while not path.exists():
        time.sleep(0.01)
    return os.environ["TFLAUNCH_TASK"]


def test_tasks_have_labels_in_order(clusters: Clusters) -> None:
    assert clusters(chief=True, ps=1, evaluator=1).labels == ("chief 0", "worker 0", "worker 1", "ps 0", "evaluator 0")


def test_steps_under_way_can_be_waited_for(clusters: Clusters, tmp_path: Path) -> None:
    run = clusters().start(wait_for, tmp_path / "go")
    assert not run.over
    (tmp_path / "go").touch()
    assert run.wait().ok
    assert run.result() == ["worker:0", "worker:1"]
    assert run.over


def test_one_thing_at_a_time(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters()
    run = cluster.start(wait_for, tmp_path / "go")
    with pytest.raises(RequestError, match="runs something already"):
        cluster.run(os.getpid)
    run.stop()
    assert run.wait().outcome.verdict.status == "interrupted"
    assert len(cluster.run(os.getpid)) == 2


def test_nothing_is_left_of_what_still_runs(tmp_path: Path) -> None:
    def left() -> list[psutil.Process]:
        return living(lambda process: str(tmp_path) in " ".join(process.cmdline()))

    with Clusters(tmp_path) as clusters:
        cluster = clusters()
        cluster.start(wait_for, tmp_path / "never")
        for task in range(2):
            cluster.until_step(0, task)
        assert len(left()) == 2
    gone(left)


def test_a_failure_has_all_that_is_known(clusters: Clusters) -> None:
    def fail() -> None:
        print("before")
        raise ValueError("no")

    with pytest.raises(TaskFailed, match="ValueError: no") as found:
        clusters(1).run(fail)
    assert found.value.ended.outputs[0].startswith("before\nTraceback")
    assert found.value.ended.outcome.verdict.exit_status == 1


def test_what_was_printed_is_shown_once(clusters: Clusters) -> None:
    cluster = clusters(1)
    cluster.run(lambda: print("one"))
    assert list(clusters.sections()) == [("worker 0", "one")]
    cluster.run(lambda: print("two"))
    assert list(clusters.sections()) == [("worker 0", "two")]


@pytest.mark.parametrize("cpu", [0, 1, 1.5, -1])
def test_a_share_of_time_is_a_share(clusters: Clusters, cpu: float) -> None:
    with pytest.raises(RequestError, match="between 0 and 1"):
        clusters().slow(0, cpu=cpu)


def test_a_disk_has_a_place(clusters: Clusters, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such directory"):
        clusters().full_disk(tmp_path / "nowhere")
