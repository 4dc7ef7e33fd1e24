"""The main job on real data, in real TensorFlow clusters."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.acceptance.conftest import Command

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(300)]


def accuracy(lines: list[str]) -> float:
    found = [match for line in lines if (match := re.search(r"test accuracy\s+([\d.]+)%", line))]
    assert len(found) == 1, lines
    return float(found[0][1])


def test_digits_are_learnt_by_two_workers_and_resumed(tflaunch: Command) -> None:
    first = tflaunch("train", "digits", "-n", "2", timeout=250)
    assert first.status == 0, first.err
    assert accuracy(first.lines) >= 95
    kept = sorted(path.name for path in (tflaunch.cwd / "checkpoints" / "digits").iterdir())
    assert "checkpoint" in kept
    events = first.run_dir and (first.run_dir / "events.jsonl").read_text()
    assert events
    assert '"kind": "progress"' in events
    again = tflaunch("run", "-n", "2", "-m", "worker", "digits", timeout=250)
    assert again.status == 0, again.err
    assert any("already trained" in line for line in again.lines)
    assert accuracy(again.lines) == accuracy(first.lines)
    assert sorted(path.name for path in (tflaunch.cwd / "checkpoints" / "digits").iterdir()) == kept


def test_a_training_that_is_told_to_stop_does_not_sit_out_its_grace(tflaunch: Command) -> None:
    started = tflaunch.start("train", "digits", "-n", "2", "--grace", "1000", "--epochs", "100000")
    started.until(r"epoch .* loss")
    started.send(signal.SIGINT)
    status, err = started.end()
    assert status == 130, err
    again = tflaunch.start("train", "digits", "-n", "2", "--epochs", "100000")
    assert "from step" in again.until(r"checkpoints ")


SIGTERM_IS_MINE = """
import signal, sys, time
import tensorflow as tf
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
strategy = tf.distribute.MultiWorkerMirroredStrategy()
print("up", flush=True)
while True:
    time.sleep(0.1)
"""


def test_sigterm_is_the_programs_own_under_a_strategy(tflaunch: Command) -> None:
    started = tflaunch.start("run", "-n", "2", "--grace", "1000", tflaunch.script(SIGTERM_IS_MINE))
    started.until(r"\| up", times=2)
    started.send(signal.SIGTERM)
    assert started.end()[0] == 143
    assert sum("| saved" in line for line in started.seen) == 2


WITHOUT_A_PEER = """
import json, os, socket, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
if index == 0:
    import tensorflow as tf
    tf.distribute.MultiWorkerMirroredStrategy()
host, port = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][0].split(":")
while socket.socket().connect_ex((host, int(port))):
    time.sleep(0.01)
print("it waits", flush=True)
time.sleep(1000)
"""


def test_a_worker_that_waits_for_its_peers_does_not_sit_out_its_grace(tflaunch: Command) -> None:
    started = tflaunch.start("run", "-n", "2", "--grace", "1000", tflaunch.script(WITHOUT_A_PEER))
    started.until(r"\| it waits")
    started.send(signal.SIGTERM)
    status, err = started.end()
    assert status == 143, err
    assert "stopped: worker 0-1" in err


PREEMPTION = """
import tensorflow as tf
def caught():
    mask = next(line for line in open("/proc/self/status") if line.startswith("SigCgt")).split()[1]
    return bool(int(mask, 16) >> 14 & 1)
strategy = tf.distribute.MultiWorkerMirroredStrategy()
print("strategy", caught())
with strategy.scope():
    checkpoint = tf.train.Checkpoint(v=tf.Variable(1.0))
    handler = tf.distribute.experimental.PreemptionCheckpointHandler(strategy.cluster_resolver, checkpoint, "saved")
print("handler", caught())
"""


def test_sigterm_is_tensorflows_under_its_preemption_handler(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "2", tflaunch.script(PREEMPTION), timeout=250)
    assert ended.status == 0, ended.err
    for worker in range(2):
        assert {f"worker {worker} | strategy False", f"worker {worker} | handler True"} <= set(ended.lines)


KILLED = """
import os, sys
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
@tf.function
def step():
    return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)
for number in range(10_000):
    step()
    if number == 20 and os.environ["TFLAUNCH_TASK"] == "worker:1":
        FAULT
"""


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("os.kill(os.getpid(), 9)", 137, "killed by SIGKILL"),
        ("raise ValueError('diverged')", 1, "ValueError: diverged"),
    ],
)
def test_the_cause_is_told_from_its_victims(tflaunch: Command, fault: str, status: int, reason: str) -> None:
    ended = tflaunch("run", "-n", "3", tflaunch.script(KILLED.replace("FAULT", fault)), timeout=250)
    assert ended.status == status, ended.err
    assert f"worker 1 failed first, on 127.0.0.1: {reason}" in ended.err
    assert {one["task"] for one in ended.outcome["tasks"] if one["fate"] == "failed"} == {"worker 1"}


def test_a_private_cluster_trains(tflaunch: Command) -> None:
    if subprocess.run(["unshare", "--net", "--map-root-user", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel does not let us make network namespaces")
    ended = tflaunch("train", "digits", "-n", "2", "--private", "--epochs", "1", timeout=250)
    assert ended.status == 0, ended.err
    assert "step" in ended.out.decode()


TRAINING = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def test_the_task_of_the_documentation_trains_and_its_measures_are_kept(tflaunch: Command) -> None:
    [text] = re.findall(r"```python\n# my_task.py\n(.*?)```", TRAINING, re.DOTALL)
    assert len(text.strip().splitlines()) <= 30
    tflaunch.script(text, "my_task.py")
    ended = tflaunch("train", "my_task.py:task", "-n", "2", "--epochs", "2", timeout=250)
    assert ended.status == 0, ended.err
    assert ended.run_dir is not None
    assert ended.run_dir.name.startswith("my_task-")
    kept = [json.loads(line) for line in (ended.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in kept] == [1, 2, 2]
    assert {line["task"] for line in kept} == {"worker 0"}
    assert kept[1]["val_loss"] < kept[0]["val_loss"]
    assert "test_mean_absolute_error" in kept[2]
    assert (tflaunch.cwd / "checkpoints" / "mine" / "history.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["linear", "--steps", "0"], 2, "--steps: '0' is not a whole number from 1"),
        (["linear", "--global-batch", "1"], 2, "--global-batch 1 is less than the 2 replicas that share it"),
        (["linear", "--global-batch", "1000"], 2, "--global-batch 1000 is more than the 384 points to learn from"),
        (["linear", "--optimizer", "addam"], 2, "no optimizer is called 'addam' (did you mean"),
        (["linear", "--patience", "2:min:val_loss"], 2, "--patience: nothing is measured as val_loss (did you mean loss?)"),
        (["mine.py:tsk"], 2, "mine.py has nothing called tsk (did you mean task?)"),
        (["mine.py:task"], 2, "label 7 of example 1 is out of range: the model has outputs 0 to 2"),
        (["broken.py:task"], 2, "broken.py does not import: ModuleNotFoundError: No module named 'nowhere' (broken.py:1)"),
        (["linear", "--optimizer", "sgd", "--learning-rate", "1e30"], 1, "is no finite number, and worker"),
    ],
)  # fmt: skip
def test_what_all_workers_find_out_is_said_once(tflaunch: Command, args: list[str], status: int, words: str) -> None:
    mine = """
        import keras, numpy as np
        from worker import Arrays, Data, Task, cross_entropy
        model = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
        data = lambda: Data(Arrays(np.zeros((4, 1), np.float32), np.array([0, 7, 1, 2])))
        task = Task(name="mine", model=model, loss=cross_entropy, data=data, global_batch=4)
    """
    tflaunch.script(textwrap.dedent(mine), "mine.py")
    tflaunch.script("import nowhere", "broken.py")
    ended = tflaunch("train", "-n", "2", *args, timeout=200)
    assert ended.status == status, ended.err
    assert sum(words in line for line in ended.lines) == 1, ended.lines
    assert "worker 0 failed first, on 127.0.0.1: exited: " in ended.err
    # Stopped, if the chief was so quick that the other had not found out yet.
    assert re.search(r"(failed because of it|stopped): worker 1$", ended.err, re.MULTILINE)
    assert not any("Traceback" in line for line in ended.lines)
