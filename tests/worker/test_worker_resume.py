"""Real clusters that stop and go on: with what each replica has for itself, with other numbers of workers, killed."""

from __future__ import annotations

import shutil
import signal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.worker.conftest import Processes

pytestmark = pytest.mark.tensorflow
tf = pytest.importorskip("tensorflow")

# Everything that one step can leave behind: weights, Adam's moments, averages that differ from worker to worker, and the
# state of random numbers, of Dropout and of a generator of the model's own.
MODEL = """
import os, shutil, sys, zlib
import numpy as np
import tensorflow as tf
from worker.checkpoint.checkpoints import Checkpoints
from worker.context import Context
from worker.checkpoint.position import Position
from worker.checkpoint.rhythm import Every
from worker.checkpoint.saving import Saving
from worker.checkpoint.state import State, variable_of
from worker.strategy import build, choose

legacy = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
if legacy:
    import tf_keras as keras
    keras.backend.experimental.enable_tf_random_generator()
else:
    import keras
context = Context.from_environment(os.environ)
strategy = build(choose(context.size, 0))
place = "" if context.is_chief else "nowhere/"

@keras.utils.register_keras_serializable() if legacy else keras.saving.register_keras_serializable()
class Noise(keras.layers.Layer):
    def __init__(self, **given):
        super().__init__(**given)
        self.generator = tf.random.Generator.from_seed(7)
    def call(self, inputs, training=False):
        return inputs + self.generator.normal(tf.shape(inputs)) if training else inputs

class Learner:
    def __init__(self, seed):
        keras.utils.set_random_seed(seed)
        with strategy.scope():
            self.model = keras.Sequential([
                keras.layers.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5), Noise(), keras.layers.Dense(1),
            ])
            self.optimizer = keras.optimizers.Adam(0.01)
            self.optimizer.build(self.model.trainable_variables)
        self.state = State(strategy, model=self.model, optimizer=self.optimizer)
        self.step = tf.function(lambda part: strategy.run(self.part, args=(part,)))
    def part(self, features):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.model(features, training=True) ** 2)
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    def learn(self, step):
        rows = lambda r: np.random.default_rng([step, r.replica_id_in_sync_group]).normal(size=(8, 4))
        self.step(strategy.experimental_distribute_values_from_function(lambda r: tf.constant(rows(r), tf.float32)))
    def values(self):
        averages = self.state.averages()
        return {key: value.numpy() for key, value in self.state.snapshot(averages).items()}
    def checkpoints(self, folder, every=Every(), **saving):
        saving = Saving(place + folder, "recipe", every, **saving)
        return Checkpoints(saving, self.state, is_chief=context.is_chief)
"""

EXACT = (
    MODEL
    + """
whole = Learner(1)
with whole.checkpoints("kept", keep=10) as checkpoints:
    assert checkpoints.resume() == Position()
    for step in range(1, 6):
        whole.learn(step)
        checkpoints.save(Position(step=step), wait=True)
    whole.learn(6)
end = whole.values()
averaged = {slot.key for slot in whole.state.slots if slot.averaged}
assert len(averaged) == 2, averaged
mine = [strategy.experimental_local_results(slot.variable)[0].numpy() for slot in whole.state.slots if slot.averaged]
assert not any(np.array_equal(own, end[key]) for own, key in zip(mine, sorted(averaged))), "no worker has the mean by itself"

for stop in range(1, 6):
    if context.is_chief:
        shutil.copytree(f"kept/ckpt-{stop}", f"from-{stop}/ckpt-{stop}")
    again = Learner(100 + stop)
    with again.checkpoints(f"from-{stop}") as checkpoints:
        assert checkpoints.resume() == Position(step=stop)
        for step in range(stop + 1, 7):
            again.learn(step)
        found = again.values()
        assert found.keys() == end.keys()
        for key, value in end.items():
            if key in averaged:
                np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-8, err_msg=key)
            else:
                assert np.array_equal(found[key], value), (stop, key)
        assert checkpoints.finish(Position(step=6)).complete

# Only the chief's clock counts, however others' go. Its goes a second a step, and there are ten between saves.
import worker.checkpoint.checkpoints, worker.checkpoint.chief
class Clock:
    now = 0.0
    def monotonic(self):
        return self.now
clock = worker.checkpoint.checkpoints.time = worker.checkpoint.chief.time = Clock()
saved = []
with again.checkpoints("timed", every=Every(seconds=10), keep=99) as checkpoints:
    checkpoints.resume()
    for step in range(1, 41):
        clock.now += 1 if context.is_chief else 7 + step % 3
        saved += [step] * checkpoints.after_step(Position(step=step))
print("saved after", *saved)

# What the chief has arrives as it is, byte by byte.
data = np.array([np.nan, -0.0, 1e-45, np.inf], np.float32).tobytes() + b"xyz"
for sent in (data, b"", b"x" * 1_000_003):
    heard = again.state.from_chief(sent if context.is_chief else None)
    print("heard", len(heard), zlib.crc32(heard))

# Everybody takes part in the mean; what is exported is computed from it.
with again.checkpoints("exported") as checkpoints:
    checkpoints.resume()
    assert checkpoints.export(again.model, 6, saved_model=True) == ""
    inputs = np.ones((3, 4), np.float32)
    if context.is_chief:
        loaded = keras.models.load_model("exported/export/model.keras")
        saved_model = tf.saved_model.load("exported/export/saved_model/6")
        for ours, theirs in zip(again.model.layers, loaded.layers):
            for variable, value in zip(ours.weights, theirs.get_weights()):
                local = strategy.experimental_local_results(variable_of(variable))[0]
                assert np.array_equal(local.numpy(), value), variable
        np.testing.assert_allclose(loaded(inputs), saved_model.serve(inputs), rtol=1e-5)
    again.state.from_chief(b"" if context.is_chief else None)
"""
)


@pytest.mark.parametrize("keras", ["keras", "tf_keras"])
def test_a_training_that_stops_after_any_step_and_goes_on_ends_where_it_would_have(
    keras: str, tmp_path: Path, processes: Processes, written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if keras == "tf_keras":
        pytest.importorskip("tf_keras")
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    script = written(EXACT)
    chief, other = processes.cluster([(script,), (script,)])
    assert (chief.status, other.status) == (0, 0), chief.err + other.err
    assert not (tmp_path / "nowhere").exists()
    assert chief.out == other.out
    saved = [int(step) for step in chief.out.splitlines()[0].split()[2:]]
    assert saved[0] <= 11
    assert all(9 <= after - before <= 11 for before, after in pairwise(saved))
    # The first is written; a later one is left out where the disk is behind.
    kept = {int(path.name[5:]) for path in (tmp_path / "timed").glob("ckpt-*")}
    assert saved[0] in kept <= set(saved)
    assert chief.out.splitlines()[2] == "heard 0 0"


def values(folder: Path) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(str(folder / "state"))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_dtype_map() if "VARIABLE_VALUE" in key}


def test_it_goes_on_with_another_number_of_workers(tmp_path: Path, processes: Processes) -> None:
    import numpy as np

    flags = ("-m", "worker", "digits", "--epochs", "2", "--save-every", "5 steps", "--keep", "100")
    assert [ended.status for ended in processes.cluster([flags, flags])] == [0, 0]
    kept = tmp_path / "checkpoints" / "digits"
    expected = values(kept / "ckpt-46")
    stop = next(step for step in (30, 25, 35, 20, 40, 15, 10, 5) if (kept / f"ckpt-{step}").exists())
    for size in (1, 3):
        shutil.copytree(kept / f"ckpt-{stop}", tmp_path / str(size) / f"ckpt-{stop}")
        chief, *others = processes.cluster([(*flags, "--checkpoint-dir", str(size))] * size)
        assert [chief.status, *(ended.status for ended in others)] == [0] * size
        assert f"checkpoints    {size}, resumed from step {stop}\n" in chief.out
        found = values(tmp_path / str(size) / "ckpt-46")
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            if not key.startswith("about"):
                np.testing.assert_allclose(found[key], value, rtol=1e-3, atol=1e-4, err_msg=key)


# One process imports TensorFlow, and forks before it uses it: so a child is there in a moment. A line is one of our own
# code, and the N-th that a child passes is its last.
FORKS = """
import os, random, shutil, signal, sys, threading, time
import tensorflow as tf
from worker.checkpoint.checkpoints import Checkpoints
from worker.checkpoint.position import Position
from worker.checkpoint.saving import Saving
from worker.checkpoint.state import State
from worker.checkpoint.store import Store

def kill_at(number):
    lines = 0
    def trace(frame, event, _):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(("checkpoint/store.py", "checkpoint/disk.py", "checkpoint/chief.py")):
            return None
        lines += event == "line"
        if lines == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    return trace

def lives(child, *given):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child(writer, *given)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as lines:
        told = [(word, int(step)) for word, step in map(str.split, lines)]
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, -signal.SIGKILL}, status
    return told, status == 0
"""

# Each child first reads what the last one left, then saves twice, and is killed within: at a line that the writing passes,
# or after some microseconds, which may be anywhere, in TensorFlow's code too.
KILLED = (
    FORKS
    + """
def child(report, kill_at_line, kill_after):
    root = tf.Module()
    root.weight = tf.Variable(tf.zeros(100_000))
    state = State(tf.distribute.get_strategy(), model=root)
    said = []
    checkpoints = Checkpoints(Saving("kept", "recipe", keep=2), state, is_chief=True, say=said.append)
    step = checkpoints.resume().step
    assert not said, said
    assert (root.weight.numpy() == step).all()
    os.write(report, b"found %d\\n" % step)
    if kill_at_line:
        threading.settrace(kill_at(kill_at_line))
    else:
        threading.Timer(kill_after, os.kill, (os.getpid(), signal.SIGKILL)).start()
    for step in range(step + 1, step + (3 if kill_at_line else 1000)):
        root.weight.assign_add(tf.ones(100_000))
        checkpoints.save(Position(step=step), wait=True)
        os.write(report, b"saved %d\\n" % step)
    checkpoints.close()

saved, kills, number = 0, 0, 0
while True:
    number += STRIDE
    told, ended = lives(child, number, None)
    # What was told to be saved is there; what was not may be.
    assert told[0][0] == "found" and told[0][1] >= saved, (number, told, saved)
    saved = max(step for _, step in told)
    if ended:
        break
    kills += 1
random.seed(0)
for _ in range(10):
    told, _ = lives(child, None, random.uniform(0, 0.1))
    assert told[0][0] == "found" and told[0][1] >= saved, (told, saved)
    saved = max(step for _, step in told)
left = sorted(os.listdir("kept"))
print(kills, saved, left)
"""
)

# A run that starts over is killed at each line in turn. The next one, which does not, goes on with all that there was, or
# begins with nothing; then what there was is whole in its own folder.
STARTED_OVER = (
    FORKS
    + """
def opened():
    root = tf.Module()
    root.weight = tf.Variable(0)
    return Checkpoints(Saving("kept", "recipe"), State(tf.distribute.get_strategy(), model=root), is_chief=True)

def train(_):
    with opened() as checkpoints:
        checkpoints.resume()
        for step in (1, 2):
            checkpoints.save(Position(step=step), wait=True)
    os.mkdir("kept/export")
    open("kept/export/model.keras", "w").close()

def start_over(_, number):
    store = Store("kept")
    store.open()
    sys.settrace(kill_at(number))
    store.start_over()
    sys.settrace(None)

def go_on(report):
    with opened() as checkpoints:
        os.write(report, b"found %d\\n" % checkpoints.resume().step)

def files(folder):
    found = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names if name != "lock")
    return {os.path.relpath(path, folder): open(path, "rb").read() for path in found}

lives(train)
os.rename("kept", "before")
before, steps, ended, number = files("before"), [], False, 0
while not ended:
    number += 1
    shutil.copytree("before", "kept")
    _, ended = lives(start_over, number)
    ((_, step),), _ = lives(go_on)
    steps.append(step)
    folders = [name for name in os.listdir("kept") if name.startswith("before-")]
    assert files("kept" if step else "kept/" + folders[0]) == before, number
    assert len(folders) == (not step), folders
    assert step or sorted(os.listdir("kept")) == [folders[0], "lock"], os.listdir("kept")
    shutil.rmtree("kept")
assert steps == sorted(steps, reverse=True), steps
print(steps.count(2), steps.count(0))
"""
)


def test_a_kill_at_any_instant_leaves_the_checkpoint_before(
    processes: Processes, written: Callable[[str], str]
) -> None:
    ended = processes.run(written(KILLED.replace("STRIDE", "11")))
    assert ended.status == 0, ended.err
    kills, saved, *_ = ended.out.split()
    assert int(kills) > 30
    assert int(saved) > 20


def test_a_kill_at_any_line_of_starting_over_leaves_the_old_training_or_a_new_one(
    processes: Processes, written: Callable[[str], str]
) -> None:
    ended = processes.run(written(STARTED_OVER))
    assert ended.status == 0, ended.err
    old, new = map(int, ended.out.splitlines()[-1].split())
    assert old > 20
    assert new > 20


def test_a_killed_run_goes_on_from_what_it_has_saved(processes: Processes, tmp_path: Path) -> None:
    killed = processes.start("-m", "worker", "digits", "--epochs", "1000")
    assert killed.stdout
    kept = tmp_path / "checkpoints" / "digits"
    next(line for line in killed.stdout if line.startswith("epoch") and any(kept.glob("ckpt-*")))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    saved = max(int(path.name[5:]) for path in kept.glob("ckpt-*"))
    ended = processes.run("-m", "worker", "digits", "--epochs", "1")
    assert ended.status == 0
    assert f"checkpoints/digits, already trained to step {saved}; " in ended.out
