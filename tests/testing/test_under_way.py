from __future__ import annotations

import itertools
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from launcher.errors import RequestError
from launcher.testing import Clusters, UnderWay
from worker import report

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


def count_until(path: Path) -> str:
    for step in itertools.count():
        report("progress", step=step)
        if path.exists():
            return "done"
        time.sleep(0.001)
    return "never"


def resume_for_ever(run: UnderWay, task: int) -> None:
    while True:
        run.order(task, "resume")


def test_a_step_can_be_waited_for(clusters: Clusters, tmp_path: Path) -> None:
    run = clusters(1).start(count_until, tmp_path / "go")
    run.until_step(20, 0)
    (tmp_path / "go").touch()
    assert run.result() == ["done"]


def test_a_step_that_never_comes(clusters: Clusters) -> None:
    run = clusters(1).start(os.getpid)
    with pytest.raises(RequestError, match="worker 0 ended before it reported step 1"):
        run.until_step(1, 0)


def test_an_order_for_a_task_that_has_ended(clusters: Clusters, tmp_path: Path) -> None:
    def first_leaves() -> None:
        if os.environ["TFLAUNCH_TASK"] == "worker:1":
            count_until(tmp_path / "go")

    run = clusters(2).start(first_leaves)
    run.until_step(1, 1)
    while not (run.run_dir.path / "call" / "worker-0.pickle").exists():
        time.sleep(0.01)
    with pytest.raises(RequestError, match="too late to resume worker 0: it has ended"):
        resume_for_ever(run, 0)


def test_a_wait_that_is_broken_off_ends_the_run(clusters: Clusters, tmp_path: Path) -> None:
    run = clusters(1).start(count_until, tmp_path / "never")
    main = threading.main_thread().ident
    assert main is not None
    run.until_step(1, 0)
    threading.Timer(0.1, lambda: __import__("_thread").interrupt_main()).start()
    with pytest.raises(KeyboardInterrupt):
        run.wait()
    assert run.over


def test_to_stop_what_is_over_is_nothing(clusters: Clusters) -> None:
    run = clusters(1).start(os.getpid)
    run.wait()
    run.stop()
