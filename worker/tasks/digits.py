"""Handwritten digits: 1,797 images of 8 by 8 pixels, part of the package, so that no run waits for a download.

They are UCI's "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998), under CC BY 4.0; the file
digits.LICENSE has the particulars.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from worker.task import Data, Task, cross_entropy

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray


def data() -> Data:
    """1,442 images to learn from and 355 to be tested on.

    The test images are every fifth of each digit, in the order of the file. The file goes from writer to writer, so both
    parts show all writers: the accuracy is that for new images by known hands.
    """
    import numpy as np

    from worker.data import Arrays

    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images = (file["images"] / 16).astype(np.float32)[..., np.newaxis]
        labels = file["labels"].astype(np.int64)
    held_out = _number_within_class(labels) % 5 == 4
    return Data(Arrays(images[~held_out], labels[~held_out]), test=Arrays(images[held_out], labels[held_out]))


def _number_within_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    numbers = np.empty_like(labels)
    for label in np.unique(labels):
        members = labels == label
        numbers[members] = np.arange(members.sum())
    return numbers


def model() -> keras.Model:
    """A small convolutional network of 33,802 parameters."""
    import keras

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


TASK = Task(
    name="digits",
    noun="images",
    model=model,
    loss=cross_entropy,
    data=data,
    metrics=("sparse_categorical_accuracy",),
    learning_rate=0.002,
    global_batch=64,
    epochs=20,
)
