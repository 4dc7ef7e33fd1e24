"""The chief's side of checkpoints: the part that sees the disk.

The training does not wait for it: the values of a moment are noted, which costs next to nothing, and a thread writes them.
A checkpoint that is due while the one before is still being written is left out, and counted: waiting would slow all
workers down to the speed of one disk, and a queue would hold one more copy of the model each. One that is the best so far
waits, since there will be no second chance; so does the last one.

What can go wrong on the disk ends no training: it is told at once, and again at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from worker.checkpoint.contents import ABOUT, differences, graph_of, write
from worker.checkpoint.disk import DiskError, reason
from worker.checkpoint.export import exporters, place
from worker.checkpoint.lock import Held
from worker.checkpoint.position import BEGINNING, Position
from worker.checkpoint.rhythm import ask_again_after
from worker.checkpoint.saving import CheckpointError, Outcome
from worker.checkpoint.store import EXPORT, Damaged, Store
from worker.context import report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import tensorflow as tf
    from numpy.typing import NDArray

    from worker.checkpoint.saving import Saving
    from worker.checkpoint.state import State


@dataclass(frozen=True)
class Found:
    """What the chief has for all: where to go on, or what is in the way."""

    position: Position = BEGINNING
    values: Mapping[str, NDArray[Any]] | None = None
    error: str = ""
    status: int = 0


class Chief:
    """The checkpoints of one directory, and the thread that writes them."""

    def __init__(self, saving: Saving, state: State, say: Callable[[str], None]) -> None:
        self._saving = saving
        self._state = state
        self._say = say
        self._graph = graph_of(state.slots)
        self._store = Store(saving.directory)
        self._writing = threading.Thread()
        self._measures: dict[int, Mapping[str, float]] = {}
        self._begun = BEGINNING
        self._outcome = Outcome()
        self._skipped = 0
        self._warned = False
        self._saved_at = time.monotonic()

    def resume(self) -> Found:
        directory = self._saving.directory
        try:
            if not self._store.open():
                self._say(f"{directory} has no locks: nothing keeps another run from writing there as well")
            fresh = self._saving.fresh and not self._store.begun_by(self._saving.run)
            return self._begin() if fresh or self._store.starting_over else self._go_on()
        except Held as holder:
            told = f"{directory} is in use by {holder}: wait for it, or name another directory with --checkpoint-dir"
            return Found(error=told, status=2)
        except CheckpointError as error:
            return Found(error=str(error), status=error.exit_status)
        except DiskError as error:
            told = f"cannot use the checkpoint directory {directory}: {reason(error)}; --checkpoint-dir names another"
            return Found(error=told, status=2)

    def save(self, position: Position, averages: Mapping[str, tf.Tensor], *, wait: bool) -> None:
        self._saved_at = time.monotonic()
        if wait or self._is_best(position):
            self.wait()
        if self._writing.is_alive():
            self._skipped += 1
            return
        if position.step in self._measures:
            self._amend(position)
            return
        self._begun = position
        self._warn_of_best(position)
        # Not a daemon: a training that fails lets a checkpoint that it has begun become whole.
        self._writing = threading.Thread(
            target=self._write, args=(position, self._state.snapshot(averages), wait), name="checkpoint"
        )
        self._writing.start()
        if wait:
            self.wait()

    def ask_again_after(self, step_time: float) -> int:
        seconds = self._saving.every.seconds or 0
        return ask_again_after(self._saved_at + seconds - time.monotonic(), step_time)

    def outcome(self, position: Position) -> Outcome:
        step = max(self._measures, default=None)
        return replace(self._outcome, skipped=self._skipped, step=step, complete=step == position.step)

    def export(self, model: Any, step: int, *, saved_model: bool) -> str:  # noqa: ANN401 - Keras of both kinds
        try:
            for name, write in exporters(model, self._state, step, saved_model=saved_model).items():
                place(self._store.disk, f"{EXPORT}/{name}", write)
        except Exception as error:  # noqa: BLE001 - the checkpoints have it all, and Keras can refuse in many ways
            return reason(error)
        return ""

    def close(self) -> None:
        self.wait()
        self._store.close()

    def wait(self) -> None:
        """Until nothing is being written."""
        # Never started, it cannot be waited for.
        if self._writing.ident is not None:
            self._writing.join()

    def _begin(self) -> Found:
        if folder := self._store.start_over():
            self._say(f"what was in {self._saving.directory} is now in {self._saving.directory}/{folder}")
        if self._saving.run:
            self._store.sign(self._saving.run)
        return Found()

    def _go_on(self) -> Found:
        damaged = ""
        for step in reversed(self._store.steps()):
            try:
                manifest, values = self._store.load(step)
            except Damaged as damage:
                damaged = self._store.set_aside(step)
                self._say(f"ckpt-{step} is damaged ({damage}); set aside as {damaged}, and the one before is tried")
                continue
            self._refuse_other_recipe(step, manifest.recipe)
            found = self._found(step, values)
            self._note_measures()
            return found
        if damaged:
            self._say("no checkpoint is left that is whole: the training begins anew")
        return Found()

    def _found(self, step: int, values: Mapping[str, Any]) -> Found:
        if different := differences(self._state.slots, values):
            more = f", and {len(different) - 1} more differ" if len(different) > 1 else ""
            raise CheckpointError(
                f"{self._saving.directory}/ckpt-{step} is of another model or optimizer: {different[0]}{more}; "
                "name another directory with --checkpoint-dir, or start over with --fresh",
                exit_status=2,
            )
        about = json.loads(values[ABOUT])
        return Found(Position.from_json(about["position"]), values)

    def _refuse_other_recipe(self, step: int, recipe: str) -> None:
        if recipe != self._saving.recipe:
            raise CheckpointError(
                f"{self._saving.directory}/ckpt-{step} was trained as [{recipe}], not as [{self._saving.recipe}]; "
                "repeat those flags, name another directory with --checkpoint-dir, or start over with --fresh",
                exit_status=2,
            )

    def _note_measures(self) -> None:
        for step in self._store.steps():
            try:
                self._measures[step] = self._store.manifest(step).measures
            except Damaged:
                # An older one, that nobody needs; it stays where it is.
                continue

    def _is_best(self, position: Position) -> bool:
        best = self._saving.best
        if best is None:
            return False
        others = {**self._measures, self._begun.step: self._begun.measured}
        return best.of({**others, position.step: position.measured}) == position.step

    def _warn_of_best(self, position: Position) -> None:
        best = self._saving.best
        if best and position.measured and best.metric not in position.measured and not self._warned:
            self._warned = True
            measured = ", ".join(name for name in position.measured if name != "step")
            self._say(f"there is no {best.metric} to keep the best by; what is measured here is {measured}")

    def _write(self, position: Position, values: Mapping[str, tf.Tensor], awaited: bool) -> None:
        """Runs beside the training, so it raises nothing: whatever happens is told."""
        try:
            about = json.dumps({"position": position.to_json(), "recipe": self._saving.recipe})
            if not awaited:
                _yield_the_cores()
            files = partial(write, values=values, graph=self._graph, about=about)
            self._store.write(position.step, files, position.measured, self._saving.recipe)
            self._measures[position.step] = position.measured
            self._retire()
        except Exception as error:  # noqa: BLE001 - no fault of a disk is worth a training
            self._tell_failure(position.step, reason(error))
            return
        self._tell_success(position.step)

    def _amend(self, position: Position) -> None:
        """A checkpoint may be older than the measures of its step: of a training that was stopped before it had taken them."""
        if self._measures[position.step] == position.measured:
            return
        self._measures[position.step] = position.measured
        try:
            self._store.measure(position.step, position.measured)
        except Exception as error:  # noqa: BLE001 - as in _write
            self._tell_failure(position.step, reason(error))

    def _retire(self) -> None:
        newest = sorted(self._measures)[-self._saving.keep :]
        best = self._saving.best.of(self._measures) if self._saving.best else None
        kept = {*newest, *([] if best is None else [best])}
        self._store.keep(kept)
        self._measures = {step: self._measures[step] for step in sorted(kept)}

    def _tell_success(self, step: int) -> None:
        self._outcome = replace(self._outcome, saved=self._outcome.saved + 1)
        report("checkpoint", path=f"{self._saving.directory}/ckpt-{step}", step=step)

    def _tell_failure(self, step: int, why: str) -> None:
        """Once for each reason: a disk stays full for many checkpoints."""
        if why != self._outcome.reason:
            last = max(self._measures, default=None)
            kept = "there is none yet" if last is None else f"the last one is of step {last}"
            directory = self._saving.directory
            told = f"CANNOT SAVE step {step} to {directory}: {why}. The training goes on; {kept}."
            print(told, file=sys.stderr, flush=True)
        self._outcome = replace(self._outcome, failed=self._outcome.failed + 1, reason=why)
        report("checkpoint-failed", path=f"{self._saving.directory}/ckpt-{step}", step=step, error=why)


def _yield_the_cores() -> None:
    """Have this thread take a tenth of a core where the training wants all of it, and what is left over.

    Linux knows threads as processes. The writing is TensorFlow's: were there more than moments of Python in it, the training
    would wait for the interpreter's lock, and its holder for a core.
    """
    if sys.platform == "linux":
        # A sandbox may forbid it.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
