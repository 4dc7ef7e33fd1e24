"""SIGTERM in a ``fit`` with a BackupAndRestore: all workers stop after the same batch, with what that callback can go on from.

The request travels with the logs, in the collective that they need anyway (``trainer.py``): two variables of this process,
one that is sent and one that is heard. The callback looks at what was heard after each batch.
"""

from __future__ import annotations

import functools
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from ..collective import from_chief, local, means, peers
from ..preemption import STATUS, Preempted, Preemption

if TYPE_CHECKING:
    from collections.abc import Callable


class _Words(NamedTuple):
    """What this worker tells in each step, and what it has heard of all: above 0 where SIGTERM has come."""

    sent: tf.Variable
    heard: tf.Variable


@functools.cache
def _words() -> _Words:
    # Plain variables, wherever this is called first: a strategy's scope would make them its own, and a function a part of it.
    with tf.init_scope(), tf.device("CPU:0"):
        return _Words(*(ResourceVariable(0.0, trainable=False) for _ in range(2)))


def means_with_word(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """``means``, and what the workers tell each other with it."""
    words = _words()
    found, word = means(strategy, (values, words.sent.read_value()))
    words.heard.assign(word)
    return found


class Fit:
    """One ``fit`` that can go on later.

    Args:
        saves_batches: whether a backup is of a batch; if not, it is of the end of an epoch, and is left alone.
        save: has the workers make one together.
        restored: whether it goes on from one.
    """

    def __init__(self, model: Any, *, saves_batches: bool, save: Callable[[], None], restored: bool) -> None:
        self._model = model
        self._strategy = model.distribute_strategy
        self._saves_batches = saves_batches
        self._save = save
        self._writing = threading.Lock()
        say = _say if self._strategy.extended.should_checkpoint else _keep_quiet
        step = self._step if restored else 0
        self._preemption = Preemption(peers(self._strategy), step, say, self._written)
        for word in _words():
            word.assign(0.0)
        self._preemption.__enter__()

    @property
    def _step(self) -> int:
        return int(self._model.optimizer.iterations.numpy())

    def batch_done(self) -> None:
        """Stop if the workers have agreed to; otherwise see to it that they do, if this one is to stop."""
        words = _words()
        if words.heard.numpy() > 0:
            self._preemption.agree()
            if self._saves_batches:
                self._save()
            self._stop(saved=self._saves_batches)
        self._preemption.hold()
        if self._preemption.asked:
            words.sent.assign(1.0)

    def all_done(self) -> None:
        """Stop if SIGTERM has come to any worker, before what the next run goes on from is removed. A collective."""
        asked = tf.constant(float(self._preemption.asked))
        if local(self._strategy, means(self._strategy, asked)).numpy() > 0:
            self._preemption.agree()
            if self._saves_batches:
                self._save()
            self._stop(saved=True)

    def writing(self) -> threading.Lock:
        """Held while a backup is written: the process does not leave meanwhile."""
        return self._writing

    def close(self) -> None:
        """Give SIGTERM back; what has come meanwhile comes again, unless it has been obeyed."""
        obeyed = self._preemption.agreed
        self._preemption.__exit__(Preempted if obeyed else None)
        if self._preemption.asked and not obeyed:
            signal.raise_signal(signal.SIGTERM)

    def _stop(self, *, saved: bool) -> NoReturn:
        # Nobody leaves before the chief has written.
        from_chief(self._strategy, 1)
        then = "" if saved else "the next run begins the epoch again"
        with suppress(Preempted):
            self._preemption.stop(self._step, saved=saved, then=then)
        raise SystemExit(STATUS)

    def _written(self) -> None:
        with self._writing:
            return


class _Running:
    """The ``fit`` that is under way in this process, if it is one that can go on later."""

    fit: Fit | None = None


def begin(model: Any, *, saves_batches: bool, save: Callable[[], None], restored: bool) -> None:
    end()
    _Running.fit = Fit(model, saves_batches=saves_batches, save=save, restored=restored)


def current() -> Fit | None:
    return _Running.fit


def end() -> None:
    fit, _Running.fit = _Running.fit, None
    if fit is not None:
        fit.close()


def _say(label: str, text: str) -> None:
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"tflaunch: {label} {text}\n")


def _keep_quiet(label: str, text: str) -> None:
    """What a worker other than the chief says."""
