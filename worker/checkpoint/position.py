"""How far a training has come: what a checkpoint holds beside the variables. Standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Position:
    """The next step to be made, and what came of those before it. It survives JSON unchanged.

    Attributes:
        step: steps made since the beginning of the training.
        epoch: whole epochs behind it.
        batch: global batches of the present epoch behind it: with ``epoch`` and ``seed``, the position in the data.
        seed: what the order of the data follows from.
        history: what was measured, oldest first, each with the ``step`` it was measured after.
        partial: sums over the present epoch, from which its own measures will be made.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seed: int = 0
    history: tuple[Mapping[str, float], ...] = ()
    partial: tuple[float, ...] = ()

    @property
    def measured(self) -> Mapping[str, float]:
        """What was measured right here; empty when the last measures are older."""
        return self.history[-1] if self.history and self.history[-1].get("step") == self.step else {}

    @property
    def unmeasured(self) -> bool:
        """Whether an epoch is over, and what it has come to is not in the history yet."""
        return not self.batch and bool(self.partial)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Position:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError, TypeError: it is something else.
        """
        fields = json.loads(text)
        return cls(**{**fields, "history": tuple(fields["history"]), "partial": tuple(fields["partial"])})


BEGINNING = Position()
