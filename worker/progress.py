"""How a training is getting on: lines for people, from the chief alone, and records for the launcher."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.context import report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A record tells the launcher that this worker lives, and where it is; a line is for whoever watches.
_RECORD_EVERY = 0.25
_LINE_EVERY = 10.0


class Progress:
    """Told of steps as they are made, it says what is worth saying.

    Args:
        say: prints a label and a text.
        epochs, steps: in all.
    """

    def __init__(
        self,
        say: Callable[[str, str], None],
        epochs: int,
        steps: int,
        global_batch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._epochs = epochs
        self._steps = steps
        self._batch = global_batch
        self._clock = clock
        self._rhythm = min(10, -(-epochs // 10))
        self._record_at = self._line_at = self._since = clock()
        self._first_step: int | None = None

    def stepped(self, epoch: int, step: int, loss: float) -> None:
        """Steps were made, up to ``step``, in epoch ``epoch`` (from 0)."""
        now = self._clock()
        if self._first_step is None:
            # The first call is mostly TensorFlow compiling: it tells nothing of how long the others will take.
            self._first_step, self._since = step, now
            self._line_at = now + _LINE_EVERY
        if now >= self._record_at or step == self._steps:
            self._record_at = now + _RECORD_EVERY
            report("progress", step=step, of=self._steps, loss=loss)
        if now >= self._line_at and step < self._steps:
            self._tell(epoch, step, {"loss": loss}, now)

    def epoch_done(self, epoch: int, step: int, measures: Mapping[str, float]) -> None:
        """Epoch ``epoch`` (from 0) is over, with these measures."""
        if (epoch + 1) % self._rhythm == 0 or epoch + 1 == self._epochs or step == self._steps:
            self._tell(epoch, step, measures, self._clock())

    def _tell(self, epoch: int, step: int, measures: Mapping[str, float], now: float) -> None:
        self._line_at = now + _LINE_EVERY
        parts = [_of(epoch + 1, self._epochs), f"step {_of(step, self._steps)}"]
        parts += [f"{short(name)} {value:.4f}" for name, value in measures.items() if name != "step"]
        made, took = step - (self._first_step or 0), now - self._since
        if made > 0 and took > 0:
            parts.append(f"{made * self._batch / took:,.0f} examples/s")
            if step < self._steps:
                parts.append(f"{_duration((self._steps - step) * took / made)} left")
        self._say("epoch", "   ".join(parts))


def short(name: str) -> str:
    """A measure's name as a line has room for it."""
    return name.replace("sparse_categorical_", "").replace("categorical_", "").replace("_", " ")


def _of(number: int, total: int) -> str:
    return f"{number:>{len(str(total))}}/{total}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
