from __future__ import annotations

from importlib import resources

import pytest

pytest.importorskip("numpy")

import numpy as np

from worker.tasks import NAMES, Settings, named

FILES = resources.files("worker.tasks")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_task(name: str) -> None:
    assert named(name).name == name


def test_the_recipe_is_all_but_length_and_place() -> None:
    settings = Settings(epochs=3, global_batch=32, learning_rate=0.01, seed=5, checkpoint_dir="here")
    assert settings.recipe == "--global-batch 32 --learning-rate 0.01 --seed 5"


def test_the_digits_are_split_into_1442_and_355() -> None:
    learning, tests = named("digits").load()
    assert (len(learning), len(tests)) == (1442, 355)
    assert learning.features.shape == (1442, 8, 8, 1)
    for part in (learning, tests):
        assert part.features.dtype == np.float32
        assert (part.features.min(), part.features.max()) == (0, 1)


def test_the_test_images_are_every_fifth_of_each_digit() -> None:
    _, tests = named("digits").load()
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


@pytest.mark.tensorflow
def test_the_model_has_the_size_it_says() -> None:
    pytest.importorskip("tensorflow")
    assert named("digits").model().count_params() == 33_802
