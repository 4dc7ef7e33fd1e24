"""Where every worker is: told before a run that hung is ended, and whenever somebody asks."""

from __future__ import annotations

import os
import signal

import pytest

from tests.acceptance.conftest import Command

# Worker 1 sleeps in line 8; the others wait for it in line 10.
APART = """
import os, socket, time
import worker
ours, theirs = socket.socketpair()

def wait():
    if os.environ["TFLAUNCH_TASK"] == "worker:1":
        time.sleep(1000)
    else:
        ours.recv(1)

worker.report("progress", step=7)
print("up", os.getpid(), flush=True)
wait()
"""
WHERE = ["worker 0, 2 in wait (script.py:10) <- script.py:14", "worker 1 in wait (script.py:8) <- script.py:14"]


def shown(err: str) -> list[str]:
    """The lines of the last report in what tflaunch said."""
    lines = [line.strip() for line in err.splitlines()]
    start = max(at for at, line in enumerate(lines) if line.startswith("where everybody was")) + 1
    return [line for line in lines[start:] if line.startswith("worker ")]


def test_a_hang_tells_who_is_where(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "3", "--hang-deadline", "1", tflaunch.script(APART))
    assert ended.status == 124
    assert shown(ended.err) == WHERE
    assert ended.outcome["stacks"] == WHERE
    assert ended.run_dir is not None
    whole = (ended.run_dir / "attempt-0" / "stacks.txt").read_text()
    assert whole.count(f'File "{tflaunch.cwd}/script.py", line 10 in wait') == 1
    assert "boot.py" not in whole


def test_each_attempt_that_hung_has_its_own(tflaunch: Command) -> None:
    script = tflaunch.script(APART)
    ended = tflaunch("run", "-n", "3", "--hang-deadline", "1", "--max-restarts", "1", script)
    assert ended.status == 124
    assert ended.err.count(WHERE[0]) == 2
    assert ended.outcome["restarts"][0]["stacks"] == WHERE
    assert ended.run_dir is not None
    assert all((ended.run_dir / f"attempt-{number}" / "stacks.txt").exists() for number in range(2))


def test_so_does_a_deadline(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "3", "--timeout", "2", tflaunch.script(APART))
    assert ended.status == 124
    assert shown(ended.err) == WHERE


def test_a_deadline_of_what_is_no_python(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "2", "--timeout", "0.5", "--", "sleep", "1000")
    assert ended.status == 124
    assert shown(ended.err) == ["worker 0-1 told nothing (no Python worker)"]


def test_the_peers_of_one_that_is_stopped_tell_too(tflaunch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tflaunch.start("run", "-n", "2", tflaunch.script(APART))
    lines = [started.until(r"\| up") for _ in range(2)]
    os.kill(next(int(line.split()[-1]) for line in lines if line.startswith("worker 1")), signal.SIGSTOP)
    status, err = started.end()
    assert status == 128 + signal.SIGSTOP
    assert shown(err)[:2] == ["worker 0 in wait (script.py:10) <- script.py:14", "worker 1 stopped by a signal"]


LATE = """
import json, os, socket, time
config = json.loads(os.environ["TF_CONFIG"])

def download():
    time.sleep(1000)

if config["task"]["index"]:
    download()
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("", int(config["cluster"]["worker"][0].rpartition(":")[2])))
server.listen()
time.sleep(1000)
"""


def test_what_those_do_that_do_not_join(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "3", "--join-deadline", "2", tflaunch.script(LATE))
    assert ended.status == 124
    reason = "worker 1-2 did not listen for peers within 2 s: in download() of script.py:6"
    assert ended.outcome["reason"] == reason
    assert reason in ended.err
    assert shown(ended.err)[0] == "worker 0 at script.py:14"


COLLECTIVE = """
import os, time
import tensorflow as tf
import worker
strategy = tf.distribute.MultiWorkerMirroredStrategy()

@tf.function
def step():
    return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)

def train():
    for number in range(5):
        step()
        worker.report("progress", step=number)
    if os.environ["TFLAUNCH_TASK"] == "worker:1":
        time.sleep(1000)
    step()

train()
"""


@pytest.mark.tensorflow
@pytest.mark.timeout(180)
def test_one_that_takes_no_part_in_a_collective(tflaunch: Command) -> None:
    pytest.importorskip("tensorflow")
    ended = tflaunch("run", "-n", "3", "--hang-deadline", "8", tflaunch.script(COLLECTIVE), timeout=120)
    assert ended.status == 124, ended.err
    waiting, sleeping = shown(ended.err)[:2]
    assert waiting.startswith("worker 0, 2 in quick_execute (tensorflow/")
    assert waiting.endswith(" <- train (script.py:17) <- script.py:19")
    assert sleeping == "worker 1 in train (script.py:16) <- script.py:19"
