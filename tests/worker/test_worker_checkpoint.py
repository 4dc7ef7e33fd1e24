"""Checkpoints of a model so small that a test can say what is in it; the digits' own are in test_worker_train.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.worker.conftest import Processes

pytestmark = pytest.mark.tensorflow
pytest.importorskip("tensorflow")

RECIPE = "tiny --seed 0"


class Tiny:
    """One weight and its optimizer, with checkpoints; ``train`` makes a step."""

    def __init__(self, directory: Path, recipe: str = RECIPE, *, is_chief: bool = True) -> None:
        import keras
        import tensorflow as tf

        from worker.checkpoint import Checkpoints

        self.model: Any = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        self.optimizer: Any = keras.optimizers.SGD(1.0)
        self.optimizer.build(self.model.trainable_variables)
        self.checkpoints = Checkpoints(
            str(directory), recipe, tf.distribute.get_strategy(), self.model, self.optimizer, is_chief=is_chief
        )

    @property
    def weight(self) -> float:
        return float(self.model.get_weights()[0][0, 0])

    def train(self) -> None:
        import tensorflow as tf

        self.optimizer.apply_gradients(zip([tf.ones((1, 1))], self.model.trainable_variables, strict=True))


def test_a_run_goes_on_where_the_last_one_saved(tmp_path: Path) -> None:
    first = Tiny(tmp_path)
    assert first.checkpoints.resume() == 0
    first.train()
    first.checkpoints.save()
    first.train()

    second = Tiny(tmp_path)
    assert second.checkpoints.resume() == 1
    assert second.weight == pytest.approx(first.weight + 1)


def test_an_empty_directory_gets_the_untrained_state_at_once(tmp_path: Path) -> None:
    Tiny(tmp_path / "new").checkpoints.resume()
    assert (tmp_path / "new" / "ckpt-0.index").exists()
    assert Tiny(tmp_path / "new").checkpoints.resume() == 0


def test_the_last_three_are_kept(tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    tiny.checkpoints.resume()
    for _ in range(4):
        tiny.train()
        tiny.checkpoints.save()
    assert sorted(path.stem for path in tmp_path.glob("*.index")) == ["ckpt-2", "ckpt-3", "ckpt-4"]


def test_who_is_not_the_chief_writes_nothing(tmp_path: Path) -> None:
    tiny = Tiny(tmp_path / "new", is_chief=False)
    assert tiny.checkpoints.resume() == 0
    tiny.train()
    tiny.checkpoints.save()
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_checkpoint_is_not_the_latest(tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    tiny.checkpoints.resume()
    tiny.train()
    tiny.checkpoints.save()
    (tmp_path / "ckpt-2.data-00000-of-00001").write_bytes(b"half")
    (tmp_path / "ckpt-2.index").write_bytes(b"half")

    again = Tiny(tmp_path)
    assert again.checkpoints.resume() == 1
    again.train()
    again.checkpoints.save()
    assert Tiny(tmp_path).checkpoints.resume() == 2


def damage(tmp_path: Path) -> None:
    (tmp_path / "ckpt-0.index").write_bytes(b"not an index")


def remove(tmp_path: Path) -> None:
    for path in tmp_path.glob("ckpt-0.*"):
        path.unlink()


@pytest.mark.parametrize("spoil", [damage, remove])
def test_a_checkpoint_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    from worker.checkpoint import CheckpointError

    Tiny(tmp_path).checkpoints.resume()
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=r"^cannot read checkpoint .*ckpt-0: .*--checkpoint-dir$") as caught:
        Tiny(tmp_path).checkpoints.resume()
    assert caught.value.exit_status == 2


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    from worker.checkpoint import CheckpointError

    Tiny(tmp_path).checkpoints.resume()
    other = Tiny(tmp_path, "tiny --seed 1")
    before = other.weight
    told = r"ckpt-0 was trained as \[tiny --seed 0\], not as \[tiny --seed 1\]; repeat those flags"
    with pytest.raises(CheckpointError, match=told) as caught:
        other.checkpoints.resume()
    assert caught.value.exit_status == 2
    assert other.weight == before


def test_a_save_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("worker.checkpoint.report", lambda kind, **fields: told.append((kind, fields)))
    Tiny(tmp_path).checkpoints.resume()
    assert told == [("checkpoint", {"path": str(tmp_path / "ckpt-0"), "step": 0})]


def test_a_directory_that_cannot_be_made_ends_in_one_line(tmp_path: Path, processes: Processes) -> None:
    (tmp_path / "file").touch()
    command = ("-m", "worker", "digits", "--checkpoint-dir", "file/below")
    chief, other = processes.cluster([command, command])
    assert chief.status == other.status == 1
    assert re.fullmatch(r"cannot write a checkpoint to file/below: .+\n", chief.err)
    assert other.err == "the chief could not open its checkpoints; its own line says why\n"


def test_a_full_disk_ends_in_one_line(processes: Processes, written: Callable[[str], str]) -> None:
    # A limit on the size of files stands in for the disk: the same write fails, with EFBIG for ENOSPC.
    script = written("""
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
runpy.run_module("worker", run_name="__main__")
""")
    ended = processes.run(script, "digits")
    assert ended.status == 1
    assert re.fullmatch(r"cannot write a checkpoint to checkpoints/digits: .+\n", ended.err)


def test_a_killed_run_leaves_a_usable_checkpoint(processes: Processes) -> None:
    killed = processes.start("-m", "worker", "digits", "--epochs", "1000")
    assert killed.stdout
    saved = next(int(match[1]) for line in killed.stdout if (match := re.search(r"^epoch .* step +(\d+)/", line)))
    killed.kill()
    killed.wait()

    ended = processes.run("-m", "worker", "digits", "--epochs", "11")
    assert ended.status == 0
    resumed = re.search(
        r"^checkpoints +checkpoints/digits, (?:resumed from|already trained to) step (\d+)$", ended.out, re.MULTILINE
    )
    assert resumed
    assert int(resumed[1]) >= saved == 230
