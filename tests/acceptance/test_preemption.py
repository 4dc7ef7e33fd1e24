"""SIGTERM and worse to a training under the real command: what is there afterwards, and that nobody sits out a grace."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.acceptance.conftest import Command, Started

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(300)]

# Who sits out this grace does not come to its end within the patience of a test.
TRAIN = ("train", "digits", "-n", "2", "--epochs", "100000", "--grace", "1000")
STOPPED = r"worker 0 \| stopped +after step ([\d,]+), as SIGTERM asked; saved: run again to go on"


def workers(started: Started) -> Mapping[str, int]:
    """Process ids by task."""
    below = psutil.Process(started.pid).children(recursive=True)
    return {process.environ()["TFLAUNCH_TASK"]: process.pid for process in below if "digits" in process.cmdline()}


def step_of(started: Started) -> int:
    found = [match for line in started.seen if (match := re.fullmatch(STOPPED, line))]
    assert len(found) == 1, started.seen
    return int(found[0][1].replace(",", ""))


def test_sigterm_to_the_launcher_or_to_one_worker(tflaunch: Command) -> None:
    step = 0
    for who in ("launcher", "worker:0", "worker:1"):
        started = tflaunch.start(*TRAIN)
        if step:
            assert started.until("checkpoints ").endswith(f", resumed from step {step}")
        started.until(r"epoch .* loss")
        os.kill(started.pid if who == "launcher" else workers(started)[who], signal.SIGTERM)
        status, err = started.end()
        assert status == 143, err
        before, step = step, step_of(started)
        assert step > before
        events = (tflaunch.cwd / "runs" / "latest" / "events.jsonl").read_text()
        assert events.count('"kind": "preempted"') == events.count(f'"step": {step}, "saved": true') == 2
        assert len(re.findall('"TaskExited", "task": ., "status": 143,', events)) == 2


def test_twice_to_the_launcher_kills_and_harms_no_checkpoint(tflaunch: Command) -> None:
    started = tflaunch.start(*TRAIN, "--save-every", "1 steps")
    started.until(r"epoch .* loss")
    started.send(signal.SIGTERM)
    started.send(signal.SIGTERM)
    assert started.end()[0] == 143
    again = tflaunch.start(*TRAIN)
    assert re.search("resumed from step [1-9]", again.until("checkpoints "))
    assert "damaged" not in " ".join(again.seen)


def test_the_peers_of_one_that_died_do_not_wait_for_it(tflaunch: Command) -> None:
    for victim in ("worker:0", "worker:1"):
        started = tflaunch.start(*TRAIN)
        started.until(r"epoch .* loss")
        os.kill(workers(started)[victim], signal.SIGKILL)
        status, err = started.end()
        assert status == 137, err
        assert f"{victim.replace(':', ' ')} failed first, on 127.0.0.1: killed by SIGKILL" in err
