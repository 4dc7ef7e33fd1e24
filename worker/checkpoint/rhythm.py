"""When a checkpoint is due, and which ones are kept. Pure: it sees neither a clock nor a disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.checkpoint.position import Position

_UNITS = {
    **dict.fromkeys(("step", "steps"), ("steps", 1)),
    **dict.fromkeys(("epoch", "epochs"), ("epochs", 1)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("seconds", 1)),
    **dict.fromkeys(("min", "minute", "minutes"), ("seconds", 60)),
    **dict.fromkeys(("h", "hour", "hours"), ("seconds", 3600)),
}


@dataclass(frozen=True)
class Every:
    """How often to save: whichever of these comes first. None of them: at the end alone."""

    steps: int | None = None
    seconds: int | None = None
    epochs: int | None = None

    @classmethod
    def parse(cls, text: str) -> Every:
        """``100 steps``, ``30 s``, ``10 min``, ``1 epoch``, several of them with commas between, or ``end``.

        Raises:
            ValueError: it says something else; the message tells what can be said.
        """
        every = cls()
        for part in () if text.strip() == "end" else text.split(","):
            match = re.fullmatch(r"\s*0*([1-9]\d*)\s*([a-z]+)\s*", part)
            if not match or match[2] not in _UNITS:
                raise ValueError(
                    f"{text!r} is not like '100 steps', '30 s', '10 min', '1 epoch', '1 epoch, 5 min', 'end'"
                )
            unit, size = _UNITS[match[2]]
            every = replace(every, **{unit: int(match[1]) * size})
        return every

    def crossed(self, before: Position, now: Position) -> bool:
        """Whether the training has passed a step or an epoch, since ``before``, at which to save."""
        return bool(
            (self.steps and now.step // self.steps > before.step // self.steps)
            or (self.epochs and now.epoch // self.epochs > before.epoch // self.epochs)
        )

    def steps_left(self, step: int, many: int) -> int:
        """How many of the next ``many`` steps to make before it is time to save by steps."""
        return min(many, self.steps - step % self.steps) if self.steps else many


EPOCHLY = Every(epochs=1)


@dataclass(frozen=True)
class Best:
    """A measure by which one checkpoint more is kept than the newest ones."""

    metric: str
    mode: Literal["min", "max"]

    @classmethod
    def parse(cls, text: str) -> Best:
        """``min:loss`` or ``max:accuracy``.

        Raises:
            ValueError: it says something else.
        """
        mode, _, metric = text.partition(":")
        if mode not in {"min", "max"} or not metric:
            raise ValueError(f"{text!r} is not like 'min:loss' or 'max:accuracy'")
        return cls(metric, "min" if mode == "min" else "max")

    def of(self, measures: Mapping[int, Mapping[str, float]]) -> int | None:
        """The step of the best among these, step -> measures; the older of two equals. NaN is never the best."""
        sign = 1 if self.mode == "min" else -1
        found = {step: sign * each[self.metric] for step, each in measures.items() if self.metric in each}
        ranked = sorted((value, step) for step, value in found.items() if value == value)  # noqa: PLR0124 - not NaN
        return ranked[0][1] if ranked else None


def ask_again_after(remaining: float, step_time: float) -> int:
    """After how many steps the chief is to look at its clock again, ``remaining`` seconds before a save is due; 0: now.

    Only the chief's clock counts, and the others learn of it in a collective, which is not to be had at every step. Half
    of the steps that fit are left alone each time, so steps that become slower delay a save by half of it at most, and
    there are about log2(steps between saves) such collectives a save.
    """
    if remaining <= step_time / 2:
        return 0
    return max(1, int(remaining / max(step_time, 1e-6) / 2))
