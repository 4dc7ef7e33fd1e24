"""SIGTERM in a training: at any moment it ends soon, with 143, and the next run ends where one would have that was left alone."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.worker.conftest import Ended, Processes

# What it tells the launcher is printed. A read that the signal does not end stands for a collective whose peer is gone.
ALONE = """
import ctypes, os, signal, sys, types
sys.modules["_tflaunch_boot"] = types.SimpleNamespace(report=lambda kind, **fields: print(kind, fields, flush=True))
from worker.preemption import Preempted, Preemption

def say(text):
    # In one write: the main thread and the one that watches may both have something to say, and print writes its newline by itself.
    sys.stdout.write(f"{text}\\n")
    sys.stdout.flush()

def told(label, text):
    say(f"{label} {text}")

def begun(step=0, peers=()):
    return Preemption(peers, step, told, lambda: say("waited for the disk"))

def asked(preemption):
    os.kill(os.getpid(), signal.SIGTERM)
    assert preemption._asked.wait(60)

def wait_in_c():
    reader, _ = os.pipe()
    say("waiting")
    ctypes.CDLL(None).read(reader, ctypes.create_string_buffer(1), 1)
    print("cannot come here")
"""


@pytest.fixture
def alone(processes: Processes, written: Callable[[str], str]) -> Callable[..., Ended]:
    def run(text: str, *arguments: str) -> Ended:
        return processes.run(written(ALONE + text), *arguments)

    return run


def test_with_nothing_to_save_it_leaves_at_once_wherever_it_is(
    processes: Processes, written: Callable[[str], str]
) -> None:
    for step, told in (
        (0, "before the first step, as SIGTERM asked; nothing to save"),
        (7, "after step 7, as SIGTERM asked; saved: run again to go on"),
    ):
        process = processes.start(written(ALONE + f"with begun({step}):\n    wait_in_c()"))
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        ended = processes.wait(process)
        record = {"step": step, "saved": step > 0}
        assert (ended.status, ended.out, ended.err) == (143, f"preempted {record}\nstopped {told}\n", "")


def test_with_something_to_save_it_is_noted_and_the_first_is_enough(alone: Callable[..., Ended]) -> None:
    ended = alone("""
with begun() as preemption:
    preemption.hold()
    assert not preemption.asked
    for _ in range(100):
        asked(preemption)
    preemption.agree()
    try:
        preemption.stop(1234, saved=True)
    except Preempted as stop:
        print(stop, stop.exit_status)
        sys.exit(stop.exit_status)
""")
    told = "after step 1,234, as SIGTERM asked; saved: run again to go on"
    assert ended.out == f"preempted {{'step': 1234, 'saved': True}}\nstopped {told}\nstopped {told} 143\n"
    assert (ended.status, ended.err) == (143, "")


def test_after_an_agreed_end_another_one_does_not_cut_it_short(alone: Callable[..., Ended]) -> None:
    ended = alone("""
try:
    with begun() as preemption:
        preemption.agree()
        preemption.stop(5, saved=False)
except Preempted as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(stop.exit_status)
""")
    assert (ended.status, ended.err) == (143, "")
    assert ended.out.endswith("stopped after step 5, as SIGTERM asked; NOT SAVED\n")


def test_what_was_noted_ends_a_training_once_all_is_saved(alone: Callable[..., Ended]) -> None:
    ended = alone("""
with begun() as preemption:
    preemption.hold()
    asked(preemption)
    print("saving", flush=True)
    preemption.release(9, saved=True)
    print("cannot come here")
""")
    assert (ended.status, ended.err) == (143, "")
    assert ended.out.splitlines()[:2] == ["saving", "preempted {'step': 9, 'saved': True}"]


def test_with_a_peer_gone_it_waits_for_the_disk_alone(alone: Callable[..., Ended]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there, socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        peers = [f"127.0.0.1:{one.getsockname()[1]}" for one in (there, held)]
        ended = alone(
            f"with begun(peers={peers}) as preemption:\n    preemption.hold()\n    asked(preemption)\n    wait_in_c()"
        )
    assert (ended.status, ended.err) == (143, "")
    assert "waited for the disk" in ended.out.splitlines()
    assert "cannot" not in ended.out


def test_with_all_peers_there_it_waits_for_an_agreement(alone: Callable[..., Ended]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as there,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        peers = [f"127.0.0.1:{there.getsockname()[1]}", f"[::1]:{six.getsockname()[1]}"]
        ended = alone(f"""
with begun(peers={peers}) as preemption:
    looks, look = [], preemption._look
    preemption._look = lambda: (look(), looks.append(1))
    preemption.hold()
    asked(preemption)
    while len(looks) < 3:
        pass
""")
    assert (ended.status, ended.out, ended.err) == (0, "", "")


def test_the_action_is_restored_and_a_programs_own_is_kept(alone: Callable[..., Ended]) -> None:
    ended = alone("""
with begun():
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
assert signal.set_wakeup_fd(-1) == -1
signal.signal(signal.SIGTERM, lambda *_: print("mine"))
with begun():
    os.kill(os.getpid(), signal.SIGTERM)
""")
    assert (ended.status, ended.out, ended.err) == (0, "mine\n", "")


# 8 steps an epoch and 7 batches to measure on, one a call. FAULT is what sends the signal.
TRAINING = """
import os, signal, sys
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
from worker import Arrays, Data, Task
from worker.__main__ import main
from worker.checkpoint.store import Store
from worker.learner import Learner
from worker.preemption import Preemption
from worker.progress import Progress

fault, who = sys.argv[1:3]
me = "1" if '"index": 1' in os.environ.get("TF_CONFIG", "") else "0"

def wrapped(owner, name, before, times=1):
    stock = getattr(owner, name)
    def method(self, *args, **kwargs):
        if me == who and before(*args, **kwargs):
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)
            assert held[0]._asked.wait(60)
        return stock(self, *args, **kwargs)
    setattr(owner, name, method)

held = []
enter = Preemption.__enter__
Preemption.__enter__ = lambda self: (held.append(self), enter(self))[1]
calls = []
match fault:
    case "in mid-training":
        wrapped(Progress, "stepped", lambda epoch, step, loss: step == 11)
    case "while a checkpoint is written":
        wrapped(Store, "write", lambda step, *_: step == 4)
        wrapped(Store, "keep", lambda steps: max(steps) >= 4, times=100)
    case "while an epoch is measured":
        wrapped(Learner, "score", lambda *_, **__: calls.append(1) or len(calls) == 10)
    case "while the first step is compiled":
        wrapped(Learner, "_forward", lambda *_: True)
    case "in the last save":
        wrapped(Store, "keep", lambda steps: max(steps) == 24, times=100)
    case "in the test":
        wrapped(Learner, "score", lambda *_, **__: calls.append(1) or len(calls) == 22)

def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(1)])

def data():
    x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    part = lambda rows: Arrays(x[rows], x[rows].sum(axis=1, keepdims=True))
    return Data(train=part(slice(0, 64)), validation=part(slice(64, 280)), test=part(slice(280, 400)))

task = Task(
    name="mine", model=model, loss="mean_squared_error", data=data, optimizer=lambda: keras.optimizers.Adam(0.01),
    metrics=["mean_absolute_error"], global_batch=8, epochs=3,
)
"""
RUN = """
from script import main
import os, sys
sys.exit(main(["script.py:task", "--steps-per-call", "1", *sys.argv[3:]], os.environ))
"""


class Trainings:
    """Runs that task, with a fault or without, in a folder of checkpoints."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder = folder
        self._processes = processes
        (folder / "script.py").write_text(TRAINING)
        (folder / "run.py").write_text(RUN)

    def __call__(self, folder: str, size: int, fault: str = "", who: str = "0") -> list[Ended]:
        flags = ("--save-every", "4 steps", "--keep-best", "min:val_loss", "--checkpoint-dir", folder)
        return self._processes.cluster([("run.py", fault, who, *flags)] * size)

    def values(self, folder: str) -> dict[str, Any]:
        """All that the last checkpoint holds: what was measured, too."""
        tf = pytest.importorskip("tensorflow")
        reader = tf.train.load_checkpoint(str(self._folder / folder / "ckpt-24" / "state"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_dtype_map() if "VARIABLE" in name}


@pytest.fixture
def trained(tmp_path: Path, processes: Processes) -> Trainings:
    return Trainings(tmp_path, processes)


def stopped(chief: Ended) -> Sequence[str]:
    return [line.removeprefix("stopped        ") for line in chief.out.splitlines() if line.startswith("stopped")]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        (value == other[name]).all() if hasattr(value, "all") else value == other[name] for name, value in one.items()
    )


@pytest.mark.tensorflow
@pytest.mark.timeout(300)
def test_two_workers_stop_after_the_same_step_and_go_on_as_if_nothing_had_been(
    trained: Trainings, tmp_path: Path
) -> None:
    assert [ended.status for ended in trained("calm", 2)] == [0, 0]
    calm = trained.values("calm")
    assert len(calm) > 8
    faults = (
        ("in mid-training", "1", 12),
        ("while a checkpoint is written", "0", None),
        ("while an epoch is measured", "1", 16),
    )
    for fault, who, step in faults:
        ended = trained(fault, 2, fault, who)
        assert [one.status for one in ended] == [143, 143], ended
        assert not any("Traceback" in one.err for one in ended)
        [told] = stopped(ended[0])
        assert told.endswith(", as SIGTERM asked; saved: run again to go on")
        if step:
            assert told.startswith(f"after step {step},")
            assert (tmp_path / fault / f"ckpt-{step}").exists()
        again = trained(fault, 2)
        assert [one.status for one in again] == [0, 0], again
        assert f", resumed from {told.removeprefix('after ').partition(',')[0]}\n" in again[0].out
        assert same(trained.values(fault), calm), fault
    # The checkpoint that was written before the epoch was measured has got its measures since.
    assert '"val_loss"' in (tmp_path / "while an epoch is measured" / "ckpt-16" / "manifest.json").read_text()


@pytest.mark.tensorflow
@pytest.mark.timeout(300)
def test_before_the_first_step_and_after_the_last_it_ends_at_once(trained: Trainings, tmp_path: Path) -> None:
    [ended] = trained("first", 1, "while the first step is compiled")
    assert ended.status == 143, ended.err
    assert stopped(ended) == ["before the first step, as SIGTERM asked; nothing to save"]
    assert not list((tmp_path / "first").glob("ckpt-*"))
    for fault in ("in the last save", "in the test"):
        [ended] = trained(fault, 1, fault)
        assert ended.status == 143, ended.err
        assert stopped(ended) == ["after step 24, as SIGTERM asked; saved: run again to go on"]
        assert (tmp_path / fault / "export" / "model.keras").exists()
        [again] = trained(fault, 1)
        assert again.status == 0
        assert "already trained to step 24" in again.out
        assert "\ntest " in again.out
