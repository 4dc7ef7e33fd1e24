"""Checkpoints of a model so small that a test can say what is in it, in one process; clusters are in test_worker_resume."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest

from worker.checkpoint.position import BEGINNING, Position
from worker.checkpoint.rhythm import Best, Every

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.worker.conftest import Processes
    from worker.checkpoint.saving import Outcome

pytestmark = pytest.mark.tensorflow
tf = pytest.importorskip("tensorflow")

RECIPE = "tiny --seed 0"


class Tiny:
    """One weight and its optimizer, with checkpoints; each step adds -1 to the weight."""

    def __init__(self, directory: object, *, units: int = 1, optimizer: str = "SGD", **saving: Any) -> None:
        import keras

        from worker.checkpoint.checkpoints import Checkpoints
        from worker.checkpoint.saving import Saving
        from worker.checkpoint.state import State

        self.said: list[str] = []
        self.model: Any = keras.Sequential([keras.Input((1,)), keras.layers.Dense(units, use_bias=False)])
        self.optimizer: Any = getattr(keras.optimizers, optimizer)(1.0)
        self.optimizer.build(self.model.trainable_variables)
        self.checkpoints = Checkpoints(
            Saving(str(directory), **{"recipe": RECIPE, "every": Every(steps=1), **saving}),
            State(tf.distribute.get_strategy(), model=self.model, optimizer=self.optimizer),
            is_chief=True,
            say=self.said.append,
        )

    @property
    def weight(self) -> float:
        return float(self.model.get_weights()[0][0, 0])

    def train(self, start: Position, steps: int, **measures: float) -> Position:
        """Make steps; each is written before the next is made, so that none is left out."""
        for step in range(start.step + 1, start.step + steps + 1):
            self.optimizer.apply_gradients(zip([tf.ones((1, 1))], self.model.trainable_variables, strict=True))
            history = (*start.history, {"step": step, **measures})
            self.checkpoints.save(Position(step=step, seed=3, history=history), wait=True)
        return Position(step=start.step + steps, seed=3, history=history)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[..., Tiny]]:
    """Makes them in one directory, and closes each before the next is made."""
    made: list[Tiny] = []

    def make(directory: object = tmp_path / "kept", **given: Any) -> Tiny:
        for each in made:
            each.checkpoints.close()
        made.append(Tiny(directory, **given))
        return made[-1]

    yield make
    for each in made:
        each.checkpoints.close()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_run_goes_on_where_the_last_one_saved(tiny: Callable[..., Tiny]) -> None:
    first = tiny()
    assert first.checkpoints.resume() == BEGINNING
    position = first.train(BEGINNING, 3, loss=0.5)
    second = tiny()
    assert second.checkpoints.resume() == position
    assert second.weight == first.weight
    assert int(second.optimizer.iterations) == 3
    assert second.checkpoints.finish(position).complete
    assert second.said == []


def test_tensorflow_reads_the_files_as_its_own(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    first = tiny(keep=2, optimizer="Adam")
    first.checkpoints.resume()
    first.train(BEGINNING, 3)
    other = tiny(tmp_path / "elsewhere", optimizer="Adam")
    checkpoint = tf.train.Checkpoint(model=other.model, optimizer=other.optimizer)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "kept"), max_to_keep=2)
    assert manager.latest_checkpoint == tf.train.latest_checkpoint(str(tmp_path / "kept"))
    assert manager.checkpoints == [str(tmp_path / "kept" / f"ckpt-{step}" / "state") for step in (2, 3)]
    checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    assert other.weight == first.weight
    for mine, restored in zip(first.optimizer.variables, other.optimizer.variables, strict=True):
        assert mine.numpy() == restored.numpy()
    tf.train.Checkpoint(model=other.model).restore(manager.checkpoints[0]).assert_existing_objects_matched()
    assert other.weight != first.weight


def test_the_newest_and_the_best_are_kept(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    first = tiny(keep=2, best=Best("loss", "min"))
    first.checkpoints.resume()
    position = BEGINNING
    for loss in (0.5, 0.1, 0.4, float("nan"), 0.3):
        position = first.train(position, 1, loss=loss)
    assert names(tmp_path / "kept") == ["checkpoint", "ckpt-2", "ckpt-4", "ckpt-5", "lock"]
    # The next run knows what the best was.
    second = tiny(keep=2, best=Best("loss", "min"))
    second.checkpoints.resume()
    second.train(position, 2, loss=0.2)
    assert names(tmp_path / "kept") == ["checkpoint", "ckpt-2", "ckpt-6", "ckpt-7", "lock"]


def test_a_measure_that_nobody_takes_is_told_once(tiny: Callable[..., Tiny]) -> None:
    first = tiny(best=Best("accuracy", "max"))
    first.checkpoints.resume()
    first.train(first.train(BEGINNING, 1, loss=0.5, error=0.1), 1, loss=0.4)
    assert first.said == ["there is no accuracy to keep the best by; what is measured here is loss, error"]


def test_what_somebody_put_there_is_never_removed(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    first = tiny(keep=1)
    first.checkpoints.resume()
    position = first.train(BEGINNING, 1)
    (tmp_path / "kept" / "ckpt-1" / "notes.txt").write_text("mine")
    (tmp_path / "kept" / "ckpt-notes").mkdir()
    first.train(position, 1)
    assert names(tmp_path / "kept") == ["checkpoint", "ckpt-2", "ckpt-notes", "left-ckpt-1", "lock"]
    assert names(tmp_path / "kept" / "left-ckpt-1") == ["notes.txt"]


def test_to_start_over_moves_what_is_there(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    first = tiny()
    first.checkpoints.resume()
    first.checkpoints.export(first.model, first.train(BEGINNING, 2).step)
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    fresh = tiny(fresh=True, recipe="something else")
    assert fresh.checkpoints.resume() == BEGINNING
    (folder,) = (tmp_path / "kept").glob("before-*")
    assert fresh.said == [f"what was in {tmp_path / 'kept'} is now in {folder}"]
    assert names(tmp_path / "kept") == [folder.name, "lock", "notes.txt"]
    # What was moved is a directory of checkpoints like any other.
    assert names(folder) == ["checkpoint", "ckpt-1", "ckpt-2", "export"]
    assert tiny(folder).checkpoints.resume().step == 2
    nothing = tiny(tmp_path / "empty", fresh=True)
    assert nothing.checkpoints.resume() == BEGINNING
    assert nothing.said == []


def test_the_attempts_of_a_run_start_over_once(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    old = tiny()
    old.checkpoints.resume()
    old.train(BEGINNING, 5)
    first = tiny(fresh=True, run="t-1")
    assert first.checkpoints.resume() == BEGINNING
    first.train(BEGINNING, 2)
    assert tiny(fresh=True, run="t-1").checkpoints.resume().step == 2
    # An attempt that ended before it came to that leaves it to the next one.
    assert tiny(fresh=True, run="t-2").checkpoints.resume() == BEGINNING


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def garble(path: Path) -> None:
    path.write_text('{"step": "three"}')


@pytest.mark.parametrize(
    ("file", "spoil", "told"),
    [
        ("state.data-00000-of-00001", cut, "state.data-00000-of-00001 has .* bytes, not"),
        ("state.data-00000-of-00001", flip, "the values are not what was written: .*Checksum does not match"),
        ("state.data-00000-of-00001", "unlink", "state.data-00000-of-00001 is missing"),
        ("state.index", cut, "state.index has .* bytes, not"),
        ("state.index", flip, "state.index is not what was written"),
        ("state.index", "unlink", "state.index is missing"),
        ("manifest.json", "unlink", "it has no manifest.json"),
        ("manifest.json", cut, "its manifest.json is not what was written"),
        ("manifest.json", garble, "its manifest.json is not what was written"),
    ],
)
def test_a_damaged_one_is_set_aside_and_the_one_before_it_used(
    tmp_path: Path, tiny: Callable[..., Tiny], file: str, spoil: Callable[[Path], None] | str, told: str
) -> None:
    first = tiny()
    first.checkpoints.resume()
    first.train(BEGINNING, 3)
    damaged = tmp_path / "kept" / "ckpt-3" / file
    damaged.unlink() if isinstance(spoil, str) else spoil(damaged)
    before = {path.name: path.read_bytes() for path in damaged.parent.iterdir()}

    second = tiny()
    assert second.checkpoints.resume().step == 2
    assert second.weight == pytest.approx(first.weight + 1)
    assert len(second.said) == 1
    assert re.match(rf"ckpt-3 is damaged \(.*{told}.*\); set aside as damaged-ckpt-3, ", second.said[0])
    aside = tmp_path / "kept" / "damaged-ckpt-3"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    second.train(Position(step=2), 1)
    assert tiny().checkpoints.resume().step == 3


def test_every_flipped_bit_of_the_values_is_found(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    from worker.checkpoint.store import Damaged, Store

    first = tiny(optimizer="Adam")
    first.checkpoints.resume()
    first.train(BEGINNING, 1)
    data = tmp_path / "kept" / "ckpt-1" / "state.data-00000-of-00001"
    good = data.read_bytes()
    store = Store(str(tmp_path / "kept"))
    store.load(1)
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        data.write_bytes(bad)
        with pytest.raises(Damaged):
            store.load(1)


def test_when_none_is_left_the_training_begins_anew_and_says_so(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    first = tiny()
    first.checkpoints.resume()
    first.train(BEGINNING, 1)
    cut(tmp_path / "kept" / "ckpt-1" / "state.index")
    second = tiny()
    assert second.checkpoints.resume() == BEGINNING
    assert second.said[1:] == ["no checkpoint is left that is whole: the training begins anew"]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            {"recipe": "tiny --seed 1"},
            r"was trained as \[tiny --seed 0\], not as \[tiny --seed 1\]; repeat those flags",
        ),
        (
            {"units": 2},
            r"another model or optimizer: model variable \S+/kernel is 1x1 of float32 in it and 1x2 of float32 here; name",
        ),
        (
            {"optimizer": "Adam"},
            r"another model or optimizer: optimizer variable adam\w*/\w+_momentum \(1x1 of float32\) is not in it, and 1 more",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_and_stays(
    tmp_path: Path, tiny: Callable[..., Tiny], other: dict[str, Any], told: str
) -> None:
    from worker.checkpoint.saving import CheckpointError

    first = tiny()
    first.checkpoints.resume()
    first.train(BEGINNING, 1)
    before = names(tmp_path / "kept")
    with pytest.raises(CheckpointError, match=rf"^\S+/ckpt-1 (is of|{told}).*--fresh$") as caught:
        tiny(**other).checkpoints.resume()
    assert re.search(told, str(caught.value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2
    assert names(tmp_path / "kept") == before


def test_a_variable_that_is_there_and_not_here_is_named(tiny: Callable[..., Tiny]) -> None:
    from worker.checkpoint.saving import CheckpointError

    first = tiny(optimizer="Adam")
    first.checkpoints.resume()
    first.train(BEGINNING, 1)
    with pytest.raises(CheckpointError, match=r": it has optimizer/_variables/2, which is not here, and 1 more differ"):
        tiny().checkpoints.resume()


def test_checkpoints_of_another_program_are_left_alone(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    from worker.checkpoint.saving import CheckpointError

    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=tf.Variable(1.0)), str(tmp_path / "kept"), 1)
    manager.save()
    before = {name: (tmp_path / "kept" / name).read_bytes() for name in names(tmp_path / "kept")}
    with pytest.raises(CheckpointError, match=r"it holds checkpoints that are not the trainer's own \(ckpt-1\); "):
        tiny(fresh=True).checkpoints.resume()
    assert {name: (tmp_path / "kept" / name).read_bytes() for name in before} == before


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    from worker.checkpoint.saving import CheckpointError

    first = Tiny(tmp_path)
    first.checkpoints.resume()
    with pytest.raises(CheckpointError, match=r" is in use by process \d+ on .*: wait for it, or ") as caught:
        Tiny(tmp_path).checkpoints.resume()
    assert caught.value.exit_status == 2
    first.checkpoints.close()


def test_who_is_not_the_chief_sees_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.checkpoint.checkpoints import Checkpoints
    from worker.checkpoint.saving import Saving
    from worker.checkpoint.state import State

    model = tf.Module()
    model.weight = tf.Variable(1.0)
    state = State(tf.distribute.get_strategy(), model=model)
    word = json.dumps(["", 0, BEGINNING.to_json(), False]).encode()
    monkeypatch.setattr(state, "from_chief", lambda _: word)
    with Checkpoints(Saving(str(tmp_path / "kept"), "", Every(steps=1)), state, is_chief=False) as checkpoints:
        assert checkpoints.resume() == BEGINNING
        assert checkpoints.after_step(Position(step=1))
        assert checkpoints.finish(Position(step=1)).complete
    assert list(tmp_path.iterdir()) == []


def fails(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Outcome, str, list[str]]:
    """What becomes of a training whose disk fails after two steps: the outcome, and what is said and reported."""
    kinds: list[str] = []
    monkeypatch.setattr("worker.checkpoint.chief.report", lambda kind, **_: kinds.append(kind))
    outcome = tiny.checkpoints.finish(tiny.train(Position(step=2), 3))
    return outcome, capsys.readouterr().err, kinds


def test_a_directory_that_is_gone_ends_no_training(
    tmp_path: Path, tiny: Callable[..., Tiny], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny()
    first.checkpoints.resume()
    first.train(BEGINNING, 2)
    shutil.rmtree(tmp_path / "kept")
    outcome, said, kinds = fails(first, capsys, monkeypatch)
    # A mount that is gone leaves an empty place behind, which is no place to write to.
    assert not (tmp_path / "kept").exists()
    assert (outcome.saved, outcome.failed, outcome.step, outcome.complete) == (2, 4, 2, False)
    assert kinds == ["checkpoint-failed"] * 4
    kept = tmp_path / "kept"
    told = (
        f"CANNOT SAVE step 3 to {kept}: No such file or directory. The training goes on; the last one is of step 2.\n"
    )
    assert said == told


def test_a_disk_that_fills_is_told_once_and_what_it_holds_stays_whole(
    tmp_path: Path, tiny: Callable[..., Tiny], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny()
    first.checkpoints.resume()
    first.train(BEGINNING, 2)
    real = tf.raw_ops.SaveV2

    def write_half(prefix: str, **given: Any) -> None:
        real(prefix=prefix, **given)
        cut(tmp_path / "kept" / ".writing-ckpt-3" / "state.index") if "ckpt-3" in prefix else None
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device\n [[{{node SaveV2}}]]")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", write_half)
    outcome, said, _ = fails(first, capsys, monkeypatch)
    assert (outcome.saved, outcome.failed, outcome.complete) == (2, 4, False)
    assert outcome.reason == "No space left on device"
    assert said.count("\n") == said.count("CANNOT SAVE step 3") == 1
    assert names(tmp_path / "kept") == ["checkpoint", "ckpt-1", "ckpt-2", "lock"]
    # When there is room again, the end is saved all the same.
    monkeypatch.undo()
    assert first.checkpoints.finish(Position(step=5)).complete
    assert tiny().checkpoints.resume().step == 5


def test_a_disk_that_is_full_from_the_beginning_is_left_as_it_was(
    tmp_path: Path, tiny: Callable[..., Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.checkpoint.disk import Disk
    from worker.checkpoint.saving import CheckpointError

    def full(self: Disk, name: str, text: str) -> None:
        (tmp_path / "kept" / name).touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Disk, "put", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        tiny().checkpoints.resume()
    assert names(tmp_path / "kept") == ["lock"]


def test_the_training_does_not_wait_for_the_disk(
    tmp_path: Path, tiny: Callable[..., Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny(best=Best("loss", "max"))
    first.checkpoints.resume()
    may_write, real = threading.Event(), tf.raw_ops.SaveV2

    def slow(**given: Any) -> None:
        assert may_write.wait(60)
        real(**given)

    monkeypatch.setattr(tf.raw_ops, "SaveV2", slow)

    def after(step: int, weight: float, loss: float) -> None:
        first.model.layers[0].kernel.assign([[weight]])
        first.checkpoints.after_step(Position(step=step, history=({"step": step, "loss": loss},)))

    after(1, weight=1.0, loss=2.0)
    # While that is being written, the next two fall due: they are left out, and what is written is the value of then.
    after(2, weight=2.0, loss=1.0)
    after(3, weight=2.0, loss=1.0)
    threading.Timer(0.1, may_write.set).start()
    # The best so far waits for its turn.
    after(4, weight=2.0, loss=3.0)
    outcome = first.checkpoints.finish(Position(step=4))
    assert (outcome.saved, outcome.skipped, outcome.complete) == (2, 2, True)
    assert names(tmp_path / "kept") == ["checkpoint", "ckpt-1", "ckpt-4", "lock"]
    for step, weight in ((1, 1.0), (4, 2.0)):
        values = tf.train.load_checkpoint(str(tmp_path / "kept" / f"ckpt-{step}" / "state"))
        (key,) = (key for key in values.get_variable_to_shape_map() if "kernel" in key)
        assert values.get_tensor(key) == weight


def test_another_file_system_will_do(tiny: Callable[..., Tiny]) -> None:
    # TensorFlow's file system in memory: like gs://, it is reached through its layer alone.
    first = tiny("ram://kept", keep=2)
    first.checkpoints.resume()
    position = first.train(BEGINNING, 3)
    assert first.checkpoints.export(first.model, 3, saved_model=True) == ""
    assert first.said == ["ram://kept has no locks: nothing keeps another run from writing there as well"]
    kept = {name.rstrip("/") for name in tf.io.gfile.listdir("ram://kept")}
    assert kept == {"checkpoint", "ckpt-2", "ckpt-3", "export"}
    assert tf.io.gfile.exists("ram://kept/export/saved_model/3/saved_model.pb")
    assert tf.io.gfile.stat("ram://kept/export/model.keras").length > 1000
    assert tiny("ram://kept").checkpoints.resume() == position
    tf.io.gfile.remove("ram://kept/ckpt-3/manifest.json")
    again = tiny("ram://kept")
    assert again.checkpoints.resume().step == 2
    assert "ckpt-3 is damaged (it has no manifest.json)" in again.said[1]
    assert tiny("ram://kept", fresh=True).checkpoints.resume() == BEGINNING


def test_the_exported_model_computes_what_the_trained_one_does(tmp_path: Path, tiny: Callable[..., Tiny]) -> None:
    import keras
    import numpy as np

    first = tiny()
    first.checkpoints.resume()
    for step in (1, 2):
        first.model.layers[0].kernel.assign([[float(step)]])
        assert first.checkpoints.export(first.model, step, saved_model=True) == ""
    assert names(tmp_path / "kept" / "export" / "saved_model") == ["1", "2"]
    inputs = np.array([[3.0]], np.float32)
    assert keras.models.load_model(tmp_path / "kept" / "export" / "model.keras")(inputs) == 6
    assert tf.saved_model.load(str(tmp_path / "kept" / "export" / "saved_model" / "2")).serve(inputs) == 6
    (tmp_path / "kept" / "export").rename(tmp_path / "moved")
    (tmp_path / "kept" / "export").touch()
    assert "export" in first.checkpoints.export(first.model, 3)


def test_a_directory_that_cannot_be_made_is_told_once_for_the_cluster(tmp_path: Path, processes: Processes) -> None:
    (tmp_path / "file").touch()
    command = ("-m", "worker", "digits", "--checkpoint-dir", "file/below")
    chief, other = processes.cluster([command, command])
    assert chief.status == other.status == 2
    assert re.fullmatch(
        r"cannot use the checkpoint directory file/below: .+; --checkpoint-dir names another\n", chief.err
    )
    assert (other.out, other.err) == ("worker 1 of 2\n", "")


def test_a_full_disk_ends_no_training_but_its_status_tells(processes: Processes, written: Callable[[str], str]) -> None:
    # A limit on the size of files stands in for the disk: the same write fails, with EFBIG for ENOSPC.
    script = written("""
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
runpy.run_module("worker", run_name="__main__")
""")
    ended = processes.run(script, "digits", "--epochs", "2")
    assert ended.status == 1
    assert re.search(r"^test accuracy ", ended.out, re.MULTILINE)
    assert re.search(r"^checkpoints    \d COULD NOT BE SAVED, 0 were; .*File too large$", ended.out, re.MULTILINE)
    first, *_, last = ended.err.splitlines()
    assert first.startswith("CANNOT SAVE step 23 to checkpoints/digits: ")
    assert re.fullmatch(r"the end of the training is not saved to checkpoints/digits: .*; there is no checkpoint", last)
