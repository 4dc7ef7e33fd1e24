from __future__ import annotations

import gzip
import struct
from importlib import resources
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("numpy")

import numpy as np

from worker.data import Arrays
from worker.task import TaskError, find
from worker.tasks import NAMES, digits, linear, mnist

if TYPE_CHECKING:
    from pathlib import Path

    from worker.task import Data

FILES = resources.files("worker.tasks")


def parts(data: Data) -> tuple[Arrays, Arrays]:
    assert isinstance(data.train, Arrays)
    assert isinstance(data.test, Arrays)
    return data.train, data.test


def test_the_digits_are_split_into_1442_and_355() -> None:
    learning, tests = parts(digits.data())
    assert (len(learning), len(tests)) == (1442, 355)
    assert learning.features.shape == (1442, 8, 8, 1)
    for part in (learning, tests):
        assert part.features.dtype == np.float32
        assert (part.features.min(), part.features.max()) == (0, 1)


def test_the_test_images_are_every_fifth_of_each_digit() -> None:
    _, tests = parts(digits.data())
    with resources.as_file(FILES / "digits.npz") as path, np.load(path) as file:
        images, labels = file["images"], file["labels"]
    for digit in range(10):
        expected = images[labels == digit][4::5]
        found = tests.features[tests.labels == digit, :, :, 0] * 16
        assert np.array_equal(found, expected)


def test_the_data_are_small_and_attributed() -> None:
    assert len((FILES / "digits.npz").read_bytes()) < 50_000
    licence = (FILES / "digits.LICENSE").read_text()
    for part in ("Alpaydin", "Kaynak", "UCI Machine Learning Repository", "10.24432/C50P49", "CC BY 4.0", "Changes"):
        assert part in licence


def test_the_points_lie_about_the_line() -> None:
    learning, tests = parts(linear.data())
    assert (len(learning), len(tests)) == (384, 128)
    slope, intercept = np.polyfit(learning.features[:, 0], learning.labels[:, 0], 1)
    assert slope == pytest.approx(linear.SLOPE, abs=0.15)
    assert intercept == pytest.approx(linear.INTERCEPT, abs=0.15)


@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "parameters"), [("digits", 33_802), ("linear", 2), ("mnist", 101_770)])
def test_the_models_have_the_size_they_say(name: str, parameters: int) -> None:
    pytest.importorskip("tensorflow")
    assert find(name, NAMES).model().count_params() == parameters


IMAGES = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
LABELS = np.array([4, 0, 9], np.uint8)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(folder: Path, *, packed: bool) -> None:
    for name, values in (("train-images-idx3", IMAGES), ("train-labels-idx1", LABELS), ("t10k-images-idx3", IMAGES[:1]), ("t10k-labels-idx1", LABELS[:1])):  # fmt: skip
        if packed:
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx(values)))
        else:
            (folder / f"{name}-ubyte").write_bytes(idx(values))


@pytest.mark.parametrize("kind", ["npz", "idx", "idx.gz"])
def test_images_from_elsewhere(tmp_path: Path, kind: str) -> None:
    place = tmp_path
    if kind == "npz":
        place = tmp_path / "mine.npz"
        np.savez(place, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:1], y_test=LABELS[:1])
    else:
        write_idx(tmp_path, packed=kind == "idx.gz")
    learning, tests = parts(mnist.data_from(str(place)))
    assert (len(learning), len(tests)) == (3, 1)
    assert np.array_equal(np.round(learning.features * 255), IMAGES)
    assert learning.labels.tolist() == [4, 0, 9]


def test_what_holds_no_images_is_told_in_one_line(tmp_path: Path) -> None:
    def told(place: Path) -> str:
        with pytest.raises(TaskError) as caught:
            mnist.data_from(str(place))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert told(tmp_path / "absent.npz").startswith(f"no such file: {tmp_path}/absent.npz (--data names")
    assert told(tmp_path).startswith(f"no such file: {tmp_path}/train-images-idx3-ubyte")
    (tmp_path / "text.npz").write_text("nothing")
    assert told(tmp_path / "text.npz").startswith(f"{tmp_path}/text.npz holds no images: ")
    np.savez(tmp_path / "other.npz", x=IMAGES)
    assert "x_train" in told(tmp_path / "other.npz")
    write_idx(tmp_path, packed=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x0d\x01" + bytes(8))
    assert "train-images-idx3-ubyte is no idx file of unsigned bytes" in told(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES)[:100])
    assert "holds no images" in told(tmp_path)
