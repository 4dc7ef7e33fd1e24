"""Tasks by name, as many in a few words as there may be. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def together(labels: Iterable[str]) -> str:
    """``worker 0-2, 5, evaluator 0``, of labels such as ``worker 0``."""
    jobs: dict[str, list[int]] = {}
    for label in labels:
        job, _, index = label.rpartition(" ")
        jobs.setdefault(job, []).append(int(index))
    return ", ".join(f"{job} {_ranges(indices)}" for job, indices in jobs.items())


def _ranges(indices: Sequence[int]) -> str:
    spans: list[list[int]] = []
    for index in sorted(indices):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
