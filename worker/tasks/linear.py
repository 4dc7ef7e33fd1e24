"""A straight line through points: y = 3x + 2 with noise. The smallest training there is, to see a cluster at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.task import Data, Result, Task

if TYPE_CHECKING:
    import keras

SLOPE, INTERCEPT, NOISE, POINTS = 3.0, 2.0, 0.5, 512
PICTURE = "linear.png"


def data() -> Data:
    """512 points, x from -1 to 1; every fourth is held out."""
    import numpy as np

    from worker.data import Arrays

    random = np.random.default_rng(20)
    x = random.uniform(-1, 1, (POINTS, 1)).astype(np.float32)
    y = (SLOPE * x + INTERCEPT + NOISE * random.standard_normal((POINTS, 1))).astype(np.float32)
    held_out = np.arange(POINTS) % 4 == 3
    return Data(Arrays(x[~held_out], y[~held_out]), test=Arrays(x[held_out], y[held_out]))


def model() -> keras.Model:
    """One weight and one bias."""
    import keras

    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def finish(result: Result) -> None:
    """Say what line was found, and draw it through the points where matplotlib is installed."""
    from worker import pictures

    weight, bias = (float(value.ravel()[0]) for value in result.model.get_weights())
    print(f"{'line':<15}y = {weight:.2f}x + {bias:.2f}, and the points were made with y = {SLOPE:g}x + {INTERCEPT:g}")
    if pictures.possible():
        path = f"{result.folder}/{PICTURE}"
        _draw(weight, bias, path)
        print(f"{'picture':<15}{path}", flush=True)


def _draw(weight: float, bias: float, path: str) -> None:
    from worker import pictures

    figure = pictures.figure()
    axes = figure.axes[0]
    for source, label in zip((data().train, data().test), ("learnt from", "tested on"), strict=True):
        axes.scatter(source.features, source.labels, s=8, alpha=0.6, label=label)  # type: ignore[union-attr]
    axes.plot([-1, 1], [bias - weight, bias + weight], color="black", label=f"y = {weight:.2f}x + {bias:.2f}")
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.legend()
    pictures.save(figure, path)


TASK = Task(
    name="linear",
    noun="points",
    model=model,
    loss="mean_squared_error",
    data=data,
    optimizer="adam",
    learning_rate=0.05,
    global_batch=64,
    epochs=40,
    finish=finish,
)
