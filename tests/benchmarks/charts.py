"""Draws the pictures as SVG, with matplotlib: readable on a light page and on a dark one."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from tests.benchmarks.numbers import number, quantity
from tests.benchmarks.pictures import Bars

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.benchmarks.pictures import Bar, Growth, Line, Picture
    from tests.benchmarks.results import Row

# Contrast enough on white and on GitHub's dark background alike; nothing is behind it.
_INK = "#7b7b7b"
_OURS = ("#e8710a", "#b9772f")
_FLOOR, _PEER = "#8f8f8f", "#7f9bb8"
_PEERS = ("#4c86c6", "#4fa05a", "#b279a2", "#3fa7a3", "#a8795a", "#8a80c8", "#c65f6d", "#8f9a3c")
_STYLE = {
    # Text stays text, and two drawings of the same figures are the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "tflaunch",
    "font.size": 9.5,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
}
# In inches.
_WIDTH, _HEAD, _BAR, _TEXT, _PLOT = 7.6, 0.42, 0.27, 0.17, 2.4
# Below bars, and below a plot, which has sizes there.
_FOOT, _SIZES = 0.12, 0.4
# Shares of the width: where plots begin and end, where bars end, and what a letter takes; figures are right of that.
_PLOTS, _BARS_END, _LETTER = (0.08, 0.66), 0.76, 0.0112
# A name that is longer takes a second line.
_LETTERS = 32
# Between two names at the ends of lines, as a share of the plot's height.
_APART = 0.11


def draw(pictures: Iterable[Picture], folder: Path) -> None:
    """Write each to a file of its name; charts that are there and not among them go."""
    import matplotlib as mpl

    folder.mkdir(exist_ok=True)
    written = set()
    with mpl.rc_context(_STYLE):
        for picture in pictures:
            path = folder / f"{picture.name}.svg"
            _figure(picture).savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
            written.add(path)
    for left in set(folder.glob("*.svg")) - written:
        left.unlink()


def _figure(picture: Picture) -> Any:
    # Not pyplot: it would look for a screen, and keep every figure.
    from matplotlib.figure import Figure

    heights = [_HEAD + sum(_body(panel)) for panel in picture.panels]
    drawn = Figure(figsize=(_WIDTH, sum(heights)))
    top = sum(heights)
    for panel, height in zip(picture.panels, heights, strict=True):
        body, _ = _body(panel)
        left, right = (_room(panel), _BARS_END) if isinstance(panel, Bars) else _PLOTS
        floor = (top - _HEAD - body) / sum(heights)
        axes = drawn.add_axes((left, floor, right - left, body / sum(heights)))
        middle = (top - _HEAD / 2) / sum(heights)
        drawn.text(0.01, middle, panel.title, weight="bold", va="center")
        drawn.text(0.99, middle, _note(panel), va="center", ha="right")
        if isinstance(panel, Bars):
            _draw_bars(axes, panel)
        else:
            _draw_growth(axes, panel)
        top -= height
    return drawn


def _note(panel: Bars | Growth) -> str:
    return f"{panel.better}; x: times {panel.times}" if panel.times else panel.better


def _body(panel: Bars | Growth) -> tuple[float, float]:
    """The height of what is drawn, and of what is below it."""
    if not isinstance(panel, Bars):
        return _PLOT, _SIZES
    lines = max(name.count("\n") + 1 for name in _names(panel))
    return max(_BAR, _TEXT * lines) * len(panel.bars), _FOOT


def _names(panel: Bars) -> list[str]:
    return [textwrap.fill(bar.row.launcher, _LETTERS) for bar in panel.bars]


def _room(panel: Bars) -> float:
    """What the names take."""
    return 0.03 + _LETTER * max(len(line) for name in _names(panel) for line in name.splitlines())


def _draw_bars(axes: Any, panel: Bars) -> None:
    largest = max(bar.row.highest for bar in panel.bars)
    for place, bar in enumerate(panel.bars):
        row = bar.row
        axes.barh(place, row.median, 0.68, color=_shade(bar))
        whisker = [[row.median - row.lowest], [row.highest - row.median]]
        axes.errorbar(row.median, place, xerr=whisker, color=_INK, capsize=2.5, linewidth=1)
        axes.text(row.highest + largest * 0.02, place, _value(row, panel.unit), va="center", **_weight(bar.role))
    axes.set_yticks(range(len(panel.bars)), _names(panel))
    for tick, bar in zip(axes.get_yticklabels(), panel.bars, strict=True):
        tick.set(**_weight(bar.role))
    axes.set(xlim=(0, largest or 1), ylim=(len(panel.bars) - 0.5, -0.5), xticks=[])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _shade(bar: Bar) -> str:
    return {"ours": _OURS[0], "floor": _FLOOR, "peer": _PEER}[bar.role]


def _weight(role: str) -> dict[str, str]:
    return {"weight": "bold", "color": _OURS[0]} if role == "ours" else {}


def _value(row: Row, unit: str) -> str:
    value = quantity(row.median, unit)
    return value if row.ratio is None else f"{value}, {number(row.ratio)}x"


def _draw_growth(axes: Any, panel: Growth) -> None:
    sizes = sorted({point.size for line in panel.lines for point in line.points})
    colors = _colors(panel.lines)
    for line, color in zip(panel.lines, colors, strict=True):
        _draw_line(axes, line, color)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    # A logarithm has no place for nothing.
    if all(point.lowest > 0 for line in panel.lines for point in line.points):
        _by_ratios(axes)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x" if panel.times else f"{value:g}")
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.25)
    _name_lines(axes, panel.lines, colors)


def _draw_line(axes: Any, line: Line, color: str) -> None:
    medians = [point.median for point in line.points]
    below = [point.median - point.lowest for point in line.points]
    above = [point.highest - point.median for point in line.points]
    axes.errorbar(
        [point.size for point in line.points],
        medians,
        [below, above],
        color=color,
        marker="o",
        markersize=4,
        capsize=2,
        linestyle="--" if line.role == "floor" else "-",
        linewidth=2.4 if line.role == "ours" else 1.3,
    )


def _by_ratios(axes: Any) -> None:
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5)))


def _colors(lines: Sequence[Line]) -> list[str]:
    colors = {"ours": iter(_OURS * len(lines)), "peer": iter(_PEERS * len(lines))}
    return [next(colors[line.role]) if line.role in colors else _FLOOR for line in lines]


def _name_lines(axes: Any, lines: Sequence[Line], colors: Sequence[str]) -> None:
    """Each line's name beside its end, moved so that no two are on each other."""
    to_share = axes.transScale + axes.transLimits
    ends = [to_share.transform((line.points[-1].size, line.points[-1].median)) for line in lines]
    upwards = sorted(zip(lines, colors, ends, strict=True), key=lambda named: float(named[2][1]))
    heights = _spread([float(end[1]) for _, _, end in upwards])
    for (line, color, end), height in zip(upwards, heights, strict=True):
        axes.annotate(
            textwrap.fill(line.label, _LETTERS),
            tuple(end),
            (1.06, height),
            "axes fraction",
            color=color,
            va="center",
            weight="bold" if line.role == "ours" else "normal",
            arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.5, "linewidth": 0.7, "relpos": (0, 0.5)},
        )


def _spread(heights: Sequence[float]) -> list[float]:
    """The same from low to high, with ``_APART`` between them; what would end above the plot moves all below it down."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + _APART) if placed else height)
    ceiling = 1.0
    for place in reversed(range(len(placed))):
        placed[place] = min(placed[place], ceiling)
        ceiling = placed[place] - _APART
    return placed
