"""A host that stays gone: the run goes on without it, waits for it, or ends, as it was told."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.acceptance import engine
from tests.acceptance.conftest import gone, living

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Command, Ended, Started

FIRST, SECOND = engine.HOSTS

PROGRAM = """
import os, pathlib, time
attempt, task = os.environ["TFLAUNCH_ATTEMPT"], os.environ["TFLAUNCH_TASK"]
print("attempt", attempt, os.environ["TF_CONFIG"], flush=True)
if task == "worker:0":
    pathlib.Path("up-" + attempt).touch()

def lose_host(how):
    while not pathlib.Path("up-" + attempt).exists():
        time.sleep(0.01)
    pathlib.Path(how).touch()
    os.kill(os.getppid(), 9)
    time.sleep(600)
"""


@dataclass
class TwoHosts:
    """The command, with two hosts to run on."""

    tflaunch: Command
    env: dict[str, str]

    def _args(self, program: str, settings: dict[str, Any]) -> tuple[str, ...]:
        asked = {"engine": "two", "hosts": [{"address": host} for host in engine.HOSTS], "backoff": 0.1, **settings}
        (self.tflaunch.cwd / "cluster.json").write_text(json.dumps(asked))
        return ("run", "cluster.json", self.tflaunch.script(PROGRAM + program))

    def run(self, program: str, **settings: Any) -> Ended:
        return self.tflaunch(*self._args(program, settings), env=self.env)

    def start(self, program: str, **settings: Any) -> Started:
        return self.tflaunch.start(*self._args(program, settings), env=self.env)


@pytest.fixture
def hosts(tflaunch: Command) -> TwoHosts:
    return TwoHosts(tflaunch, engine.install(tflaunch.cwd / "engine"))


def clusters(ended: Ended) -> dict[int, list[str]]:
    """Attempt -> the addresses of its workers, as its worker 0 saw them."""
    found = {}
    for line in ended.lines:
        if match := re.fullmatch(r"worker 0 +\| attempt (\d+) (.*)", line):
            workers = json.loads(match[2])["cluster"]["worker"]
            found[int(match[1])] = [place.rpartition(":")[0] for place in workers]
    return found


def test_it_is_left_out_and_taken_back(hosts: TwoHosts) -> None:
    program = f"""
if (attempt, task) == ("0", "worker:2"):
    lose_host("gone-{SECOND}")
if (attempt, task) == ("1", "worker:0"):
    pathlib.Path("gone-{SECOND}").unlink()
    raise ValueError("once more")
time.sleep(600 * (attempt != "2"))
"""
    ended = hosts.run(program, workers=3, max_restarts=3, min_workers=2)
    assert ended.status == 0, ended.err
    assert clusters(ended) == {0: [FIRST, FIRST, SECOND], 1: [FIRST, FIRST], 2: [FIRST, FIRST, SECOND]}
    assert f"going on without {SECOND}: no route to host" in ended.err
    assert ": 2 workers on 1 host" in ended.err
    assert f"{SECOND} is back" in ended.err


def test_the_first_host_too(hosts: TwoHosts) -> None:
    """Worker 0, and with it the checkpoints, moves to another host."""
    program = f"""
if (attempt, task) == ("0", "worker:0"):
    lose_host("gone-{FIRST}")
time.sleep(600 * (attempt == "0"))
"""
    ended = hosts.run(program, workers=2, max_restarts=1, min_workers=1, jobs={"chief": 1, "ps": 1})
    assert ended.status == 0, ended.err
    assert clusters(ended)[1] == [SECOND]
    assert {one["host"] for one in ended.outcome["tasks"]} == {SECOND}
    assert ended.outcome["left_out"] == [FIRST]
    assert f"all done after 1 restart, without {FIRST}" in ended.err


def test_where_all_are_needed_it_is_waited_for(hosts: TwoHosts) -> None:
    program = f"""
if (attempt, task) == ("0", "worker:1"):
    lose_host("gone-{SECOND}")
time.sleep(600 * (attempt == "0"))
"""
    run = hosts.start(program, workers=2, max_restarts=40, backoff=0.01)
    events = hosts.tflaunch.cwd / "runs" / "latest" / "events.jsonl"
    run.until("attempt 0")
    while not events.exists() or "AgentLost" not in events.read_text():
        pass
    (hosts.tflaunch.cwd / f"gone-{SECOND}").unlink()
    status, err = run.end()
    assert status == 0, err


@pytest.mark.parametrize(("fewest", "said"), [(None, "with --min-workers"), (2, "leaves 1 of at least 2 workers")])
def test_one_that_never_comes_back_ends_the_run(hosts: TwoHosts, fewest: int | None, said: str) -> None:
    program = f"""
if task == "worker:1":
    lose_host("gone-{SECOND}")
time.sleep(600)
"""
    few = {} if fewest is None else {"min_workers": fewest}
    ended = hosts.run(program, workers=2, max_restarts=2, **few)
    assert ended.status == 69
    assert f"{SECOND} is gone: no route to host" in ended.outcome["reason"]
    assert said in ended.err
    assert "2 restarts have been used" in ended.err
    assert [one["reason"].split(":")[0] for one in ended.outcome["restarts"]] == [
        f"the agent on {SECOND} was lost",
        f"{SECOND} is gone",
    ]


def test_waiting_for_one_that_says_nothing_can_be_broken_off(hosts: TwoHosts) -> None:
    program = f"""
if task == "worker:1":
    lose_host("silent-{SECOND}")
time.sleep(600)
"""
    run = hosts.start(program, workers=2, max_restarts=1, min_workers=1)
    run.until("attempt 0")
    mark = hosts.tflaunch.mark

    def waiting() -> list[psutil.Process]:
        ours = living(lambda process: process.name() == "sleep" and process.environ().get("ACCEPTANCE_MARK") == mark)
        return [process for process in ours if process.ppid() == run.pid]

    while not waiting():
        pass
    os.kill(run.pid, signal.SIGINT)
    status, err = run.end()
    assert status == 69
    assert "not starting again: interrupted by SIGINT" in err
    gone(waiting)


@pytest.mark.timeout(180)
def test_a_training_ends_the_same(hosts: TwoHosts) -> None:
    """What remains shares the same global batch, in the same order; sums of three and of two round differently."""
    np = pytest.importorskip("numpy")
    pytest.importorskip("tensorflow")
    tflaunch = hosts.tflaunch
    flags = ("digits", "--epochs", "40", "--save-every", "100 steps", "--checkpoint-dir")
    asked = {"engine": "two", "hosts": [{"address": host} for host in engine.HOSTS], "workers": 3}
    (tflaunch.cwd / "cluster.json").write_text(json.dumps({**asked, "max_restarts": 1, "min_workers": 2}))
    assert tflaunch("train", "cluster.json", *flags, "calm", env=hosts.env, timeout=120).status == 0
    run = tflaunch.start("train", "cluster.json", *flags, "wild", env=hosts.env)
    run.until(r"epoch +8/40")
    (tflaunch.cwd / f"gone-{SECOND}").touch()
    told = [json.loads(line) for line in (tflaunch.cwd / "runs/latest/events.jsonl").read_text().splitlines()]
    third = next(event["pid"] for event in told if event["event"] == "TaskStarted" and event["task"] == 2)
    os.kill(loop_of(third, run.pid), signal.SIGKILL)
    run.until("resumed from step")
    status, err = run.end()
    assert status == 0, err
    assert f"all done after 1 restart, without {SECOND}" in err
    calm, wild = (weights(tflaunch.cwd / name) for name in ("calm", "wild"))
    assert calm.keys() == wild.keys()
    for name, one in calm.items():
        assert np.linalg.norm(one - wild[name]) <= 1e-5 * np.linalg.norm(one), name


def weights(folder: Path) -> dict[str, Any]:
    """The model's, from its newest checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name.startswith("model")}


def loop_of(worker: int, launcher: int) -> int:
    """The agent's loop that this worker runs under."""
    line = [psutil.Process(worker), *psutil.Process(worker).parents()]
    return line[[process.pid for process in line].index(launcher) - 2].pid
