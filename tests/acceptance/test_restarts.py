"""A run that is started again after its failures, as its user sees it."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Command, Started

FLAKY = """
import os, worker
attempt = int(os.environ["TFLAUNCH_ATTEMPT"])
print("attempt", attempt, os.environ["TF_CONFIG"], flush=True)
worker.report("progress", step=attempt)
if attempt < 2 and os.environ["TFLAUNCH_TASK"] == "worker:1":
    raise ValueError("no luck")
"""


def test_until_it_succeeds(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "2", "--max-restarts", "2", tflaunch.script(FLAKY))
    assert ended.status == 0
    assert ended.err.count("worker 1: ValueError: no luck (script.py:7)") == 2
    assert "starting again now (restart 1 of 2)" in ended.err
    assert "all done after 2 restarts" in ended.err
    assert [one["step"] for one in ended.outcome["restarts"]] == [0, 1]
    assert ended.run_dir is not None
    logs = [(ended.run_dir / f"attempt-{number}" / "worker-0.log").read_text() for number in range(3)]
    assert [log.split(" ", 2)[1] for log in logs] == ["0", "1", "2"]
    # Ports and all are those of the first attempt.
    assert len({log.split(" ", 2)[2] for log in logs}) == 1


def test_until_there_is_no_use(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "2", "--max-restarts", "5", tflaunch.script("raise ValueError('never')"))
    assert ended.status == 1
    assert "the same ValueError twice before its first step" in ended.err
    assert len(ended.outcome["restarts"]) == 1


def test_not_what_a_restart_cannot_help(tflaunch: Command) -> None:
    ended = tflaunch("run", "--max-restarts", "5", tflaunch.script("import sys; sys.exit(2)"))
    assert ended.status == 2
    assert "not starting again: it would fail in the same way again" in ended.err


@pytest.mark.parametrize("whom", ["launcher", "agent"])
def test_an_interruption_of_the_pause(tflaunch: Command, whom: str) -> None:
    settings = {"script": tflaunch.script("print('up', flush=True); exit(3)"), "max_restarts": 9, "backoff": 600}
    (tflaunch.cwd / "cluster.json").write_text(json.dumps(settings))
    run = tflaunch.start("run", "cluster.json")
    run.until("up", times=2)
    events = tflaunch.cwd / "runs" / "latest" / "events.jsonl"
    while events.read_text().count("TaskExited") < 2:
        pass
    if whom == "launcher":
        run.send(signal.SIGINT)
    else:
        run.agent()[1].terminate()
    status, err = run.end()
    assert status == 3
    assert "starting again in" in err


def test_an_agent_that_is_killed_is_replaced(tflaunch: Command) -> None:
    program = """
import os, time
print("attempt", os.environ["TFLAUNCH_ATTEMPT"], flush=True)
time.sleep(600 * (os.environ["TFLAUNCH_ATTEMPT"] == "0"))
"""
    run = tflaunch.start("run", "-n", "2", "--max-restarts", "1", tflaunch.script(program))
    run.until("attempt 0", times=2)
    for process in run.agent():
        os.kill(process.pid, signal.SIGKILL)
    status, err = run.end()
    assert status == 0, err
    assert sum("attempt 1" in line for line in run.seen) == 2
    assert "the agent on 127.0.0.1 was lost: killed by SIGKILL" in err


def test_a_hang_is_noticed_and_helped_by_a_restart(tflaunch: Command) -> None:
    program = """
import os, time, worker
print("attempt", os.environ["TFLAUNCH_ATTEMPT"], flush=True)
worker.report("progress", step=7)
time.sleep(600 * (os.environ["TFLAUNCH_ATTEMPT"] == "0"))
"""
    ended = tflaunch("run", "-n", "2", "--hang-deadline", "1", "--max-restarts", "1", tflaunch.script(program))
    assert ended.status == 0
    assert "no task has made progress for 1 s, after step 7" in ended.err
    ended = tflaunch("run", "-n", "2", "--hang-deadline", "1", tflaunch.script(program))
    assert ended.status == 124
    assert ended.outcome["blame"] == "worker"


def test_a_peer_that_never_arrives_is_named(tflaunch: Command) -> None:
    program = """
import json, os, socket, time
config = json.loads(os.environ["TF_CONFIG"])
if config["task"]["index"] == 0:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("", int(config["cluster"]["worker"][0].rpartition(":")[2])))
    server.listen()
    print("listening", flush=True)
time.sleep(600)
"""
    ended = tflaunch("run", "-n", "3", "--join-deadline", "2", tflaunch.script(program))
    assert ended.status == 124
    assert "worker 1-2 did not listen for peers within 2 s" in ended.err


def test_an_evaluator_is_started_again_by_itself(tflaunch: Command) -> None:
    program = """
import os, pathlib, time
if os.environ["TFLAUNCH_TASK"] == "evaluator:0":
    if not pathlib.Path("failed").exists():
        pathlib.Path("failed").touch()
        os.kill(os.getpid(), 9)
    pathlib.Path("evaluated").touch()
else:
    print("training", flush=True)
    while not pathlib.Path("evaluated").exists():
        time.sleep(0.01)
"""
    ended = tflaunch("run", "--evaluator", "1", "--max-restarts", "1", tflaunch.script(program))
    assert ended.status == 0
    assert "evaluator 0 failed; it is started again" in ended.err
    assert sum("training" in line for line in ended.lines) == 1


@pytest.mark.timeout(180)
def test_a_training_goes_on_from_its_last_checkpoint(tflaunch: Command) -> None:
    pytest.importorskip("tensorflow")
    flags = ("--epochs", "40", "--save-every", "100 steps")
    assert tflaunch("train", "-n", "2", "digits", *flags, "--checkpoint-dir", "calm", timeout=120).status == 0
    more = ("--checkpoint-dir", "wild", "--fresh")
    run = tflaunch.start("train", "-n", "2", "--max-restarts", "1", "digits", *flags, *more)
    run.until(r"epoch +8/40")
    server = fork_server(run)
    told = [json.loads(line) for line in (tflaunch.cwd / "runs/latest/events.jsonl").read_text().splitlines()]
    pids = {event["task"]: event["pid"] for event in told if event["event"] == "TaskStarted"}
    os.kill(pids[1], signal.SIGKILL)
    run.until(r"resumed from step")
    # What has imported TensorFlow is there still, and forks the next workers.
    assert fork_server(run) == server
    status, err = run.end()
    assert status == 0, err
    assert "worker 1: killed by SIGKILL" in err
    assert weights(tflaunch, "wild") == weights(tflaunch, "calm")


def fork_server(run: Started) -> list[int]:
    return [one.pid for one in run.agent()[1].children() if "--fork-server" in one.cmdline()]


def weights(tflaunch: Command, folder: str) -> dict[str, bytes]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(tflaunch.cwd / folder))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith(("model", "optimizer"))]
    return {name: reader.get_tensor(name).tobytes() for name in names}
