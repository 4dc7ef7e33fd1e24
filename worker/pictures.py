"""The pictures of a training, where matplotlib is installed (``tflaunch[plot]``)."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HISTORY = "history.png"


def possible() -> bool:
    """Whether pictures can be drawn here."""
    return find_spec("matplotlib") is not None


def history(measures: Sequence[Mapping[str, float]], path: str) -> None:
    """Draw how the measures went from epoch to epoch: the losses in one plot, all else in another."""
    names = [name for name in measures[-1] if name != "step"] if measures else []
    groups = [[name for name in names if "loss" in name], [name for name in names if "loss" not in name]]
    groups = [group for group in groups if group]
    drawn = figure(len(groups))
    for axes, group in zip(drawn.axes, groups, strict=True):
        for name in group:
            points = [(one["step"], one[name]) for one in measures if name in one]
            axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), marker="o" if len(points) < 3 else "")
        axes.set_xlabel("step")
        axes.legend()
        axes.grid(alpha=0.3)
    save(drawn, path)


def save(drawn: Any, path: str) -> None:  # noqa: ANN401 - a matplotlib Figure
    """Write a figure as PNG, by way of TensorFlow's file systems: the folder may be a bucket."""
    import tensorflow as tf

    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=120)
    tf.io.gfile.makedirs(path.rpartition("/")[0] or ".")
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(buffer.getvalue())


def figure(plots: int = 1) -> Any:  # noqa: ANN401 - a matplotlib Figure
    """An empty figure with that many plots beside each other."""
    # Not pyplot: it would look for a screen, and keep every figure.
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.4 * plots, 4.2), layout="constrained")
    for number in range(plots):
        drawn.add_subplot(1, plots, number + 1)
    return drawn
