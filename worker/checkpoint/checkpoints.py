"""Checkpoints that the chief alone writes and reads; the other workers have its state from it over the wire.

Why nobody else needs the files: at the start of a run all workers take the chief's variables in a collective. So no two
workers can restore different checkpoints, whatever is on their disks, and the directory need not be shared.

Why all workers call it nonetheless: what differs between them is averaged for a save (state.py), and that they have to do
together. So they agree on when: by steps and epochs each for itself, by time from the chief (rhythm.py).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Self

from worker.checkpoint.chief import Chief, Found
from worker.checkpoint.position import BEGINNING, Position
from worker.checkpoint.saving import CheckpointError, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.checkpoint.saving import Saving
    from worker.checkpoint.state import State


class Checkpoints:
    """The checkpoints of one training. Every worker makes the same calls: most of them are collectives.

    Only the chief says anything: what is remarkable through ``say``, what went wrong on stderr.
    """

    def __init__(self, saving: Saving, state: State, *, is_chief: bool, say: Callable[[str], None] = print) -> None:
        self._saving = saving
        self._state = state
        self._chief = Chief(saving, state, say) if is_chief else None
        self._last = BEGINNING
        self._ask_at = 0
        self._asked = (0, time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resume(self) -> Position:
        """Bring all workers to the newest checkpoint of the chief that is whole, and tell where it stands.

        Without a checkpoint that is the beginning, where the strategy has made all variables alike.

        Raises:
            CheckpointError: on every worker, with the same words; the chief's directory cannot be used.
        """
        found = self._chief.resume() if self._chief else Found()
        word = json.dumps([found.error, found.status, found.position.to_json(), found.values is not None])
        error, status, position, restored = json.loads(self._state.from_chief(word.encode() if self._chief else None))
        if error:
            self.close()
            raise CheckpointError(error, status)
        if restored:
            self._state.receive(found.values)
        self._last = Position.from_json(position)
        self._asked = (self._last.step, time.monotonic())
        return self._last

    def after_step(self, position: Position) -> bool:
        """Save if it is time to, and tell whether it was."""
        # A run that was stopped in between has saved an epoch's last step without the epoch's measures.
        due = self._last.unmeasured or self._saving.every.crossed(self._last, position)
        due = due or self._time_has_come(position.step)
        if due:
            self.save(position)
        return due

    def save(self, position: Position, *, wait: bool = False) -> None:
        """Save now; with ``wait``, until it is written."""
        self._last = position
        averages = self._state.averages()
        if self._chief:
            self._chief.save(position, averages, wait=wait)

    def finish(self, position: Position) -> Outcome:
        """Save the last step, if it is not yet, and wait until all is written."""
        self.save(position, wait=True)
        return self._chief.outcome(position) if self._chief else Outcome()

    def settled(self, outcome: Outcome) -> bool:
        """Whether the last step is on the chief's disk. Nobody comes out of it before the chief is done with saving."""
        return bool(int(self._state.from_chief(b"%d" % outcome.complete if self._chief else None)))

    def wait(self) -> None:
        """Wait for what is being written; no collective, and in any thread."""
        if self._chief:
            self._chief.wait()

    def export(self, model: Any, step: int, *, saved_model: bool = False) -> str:  # noqa: ANN401 - Keras of both kinds
        """Put the trained model beside the checkpoints, and give the reason if that fails; empty on all other workers.

        What differs between the workers is averaged, and stays so.
        """
        self._state.average()
        return self._chief.export(model, step, saved_model=saved_model) if self._chief else ""

    def close(self) -> None:
        """Wait for what is being written, and let others have the directory. May be called twice."""
        if self._chief:
            self._chief.close()

    def _time_has_come(self, step: int) -> bool:
        if self._saving.every.seconds is None or step < self._ask_at:
            return False
        pause = self._chief.ask_again_after(self._step_time(step)) if self._chief else 0
        if not self._state.alone:
            pause = int(self._state.from_chief(str(pause).encode() if self._chief else None))
        self._ask_at = step + max(1, pause)
        return pause == 0

    def _step_time(self, step: int) -> float:
        """Of the steps since the chief was asked last."""
        (before, then), now = self._asked, time.monotonic()
        self._asked = (step, now)
        return (now - then) / max(1, step - before)
