"""Handwritten digits as everybody knows them: 70,000 images of 28 by 28 pixels, and a network 784-128-10.

The images come from the Keras cache (``~/.keras/datasets/mnist.npz``, which Keras downloads when it is not there), from an
``.npz`` file, or from a folder of idx files, the format of MNIST itself and of Fashion-MNIST.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from worker.task import Data, Task, TaskError, cross_entropy

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]
    Labels = NDArray[np.uint8]

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# http://yann.lecun.com/exdb/mnist: two bytes of 0, the type of the elements (8: unsigned bytes), how many dimensions.
_UNSIGNED = 0x08


def prepare() -> None:
    """Have Keras download the images, where they are not in its cache yet.

    Raises:
        TaskError: they are not there and cannot be had.
    """
    import keras

    try:
        keras.datasets.mnist.load_data()
    except Exception as error:  # noqa: BLE001 - Keras raises a bare Exception when a download fails
        reason = str(error).partition("\n")[0]
        raise TaskError(f"mnist is not in the Keras cache and cannot be downloaded: {reason}", _ELSEWHERE) from None


_ELSEWHERE = "--data names an .npz file, or a folder of idx files"


def data() -> Data:
    """60,000 images to learn from and 10,000 to be tested on, from the Keras cache."""
    import keras

    (train, train_labels), (test, test_labels) = keras.datasets.mnist.load_data()
    return _made(train, train_labels, test, test_labels)


def data_from(place: str) -> Data:
    """The images of an ``.npz`` file with the arrays of Keras's own, or of a folder of idx files, packed or not.

    Raises:
        TaskError: there is no such thing in it.
    """
    path = Path(place)
    try:
        if path.is_dir():
            return _made(*(_idx(path, name) for name in _IDX))
        return _from_npz(path)
    except FileNotFoundError as error:
        raise TaskError(f"no such file: {error.filename}", _ELSEWHERE) from None
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise TaskError(f"{place} holds no images: {error}", _ELSEWHERE) from None


def _from_npz(path: Path) -> Data:
    import numpy as np

    with np.load(path) as file:
        return _made(*(file[name] for name in _ARRAYS))


def _idx(folder: Path, name: str) -> NDArray[np.uint8]:
    import numpy as np

    packed = folder / f"{name}.gz"
    with gzip.open(packed) if packed.exists() else (folder / name).open("rb") as file:
        zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if zeros or kind != _UNSIGNED:
            raise ValueError(f"{name} is no idx file of unsigned bytes")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        values: NDArray[np.uint8] = np.frombuffer(file.read(), np.uint8).reshape(shape)
    return values


def _made(train: Images, train_labels: Labels, test: Images, test_labels: Labels) -> Data:
    import numpy as np

    from worker.data import Arrays

    def arrays(images: Images, labels: Labels) -> Arrays:
        return Arrays((images / 255).astype(np.float32), labels.astype(np.int64))

    return Data(arrays(train, train_labels), test=arrays(test, test_labels))


def model() -> keras.Model:
    """One hidden layer of 128; 101,770 parameters."""
    import keras

    return keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


TASK = Task(
    name="mnist",
    noun="images",
    model=model,
    loss=cross_entropy,
    data=data,
    data_from=data_from,
    metrics=("sparse_categorical_accuracy",),
    learning_rate=0.001,
    global_batch=128,
    epochs=5,
    prepare=prepare,
)
