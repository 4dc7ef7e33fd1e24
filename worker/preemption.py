"""SIGTERM in a training: noted while there is something to save, until all workers have agreed to stop.

Before the first step and after the last checkpoint there is nothing to lose, and the process leaves at once. In between, the
training asks ``asked`` before each call, tells the others in the call's own collective, and all stop after the same step.

A worker whose peer is gone would wait for that step for ever, in C++, where no handler of Python's runs. So a thread hears
of the signal, and looks for the peers: when one does not answer, nothing can be agreed on any more, and the process leaves,
as it would have without all this, but for a checkpoint that is being written.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, Self

# Relative, as the repair of Keras has this package under a private name.
from .context import report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# 128 + 15, as a shell has it for a process that SIGTERM ended.
STATUS = 143
# A lost packet is sent again after 1 s.
_ANSWER_SECONDS = 2.0
_FIRST_LOOK, _LONGEST_PAUSE = 0.1, 1.0


class Preempted(Exception):
    """All workers have stopped after the same step, as SIGTERM asked one of them to; the message is one line."""

    exit_status = STATUS


class Preemption:
    """What SIGTERM does to a training, from ``with`` to its end. A program that has an action of its own for it keeps that.

    Args:
        peers: addresses of the other workers.
        step: the step that a checkpoint holds already; 0 for none.
        say: prints a label and a text.
        finish: waits for the checkpoint that is being written.

    Attributes:
        agreed: whether all workers are about to stop.
    """

    def __init__(
        self, peers: Sequence[str], step: int, say: Callable[[str, str], None], finish: Callable[[], None]
    ) -> None:
        self._peers = peers
        self._step, self._saved = step, step > 0
        self._say = say
        self._finish = finish
        self._asked = threading.Event()
        self._leaving = threading.Lock()
        self._holding = False
        self.agreed = False
        self._reader = self._writer = -1

    @property
    def asked(self) -> bool:
        """Whether SIGTERM has come to this worker."""
        return self._asked.is_set()

    def hold(self) -> None:
        """From now on there is something to save: SIGTERM waits for an agreement."""
        self._holding = True

    def release(self, step: int, *, saved: bool) -> None:
        """The training is over and saved: from now on the process leaves at once, and now if it was asked to before."""
        self._step, self._saved = step, saved
        self._holding = False
        if self.asked:
            self._leave(self._tell)

    def agree(self) -> None:
        """All workers are about to stop: that one is gone before another means nothing from now on."""
        self.agreed = True

    def stop(self, step: int, *, saved: bool, then: str = "") -> NoReturn:
        """All workers have come here together, and the chief has saved what there is.

        Args:
            then: what to say of the next run, if there is more to say than whether this step is saved.

        Raises:
            Preempted: always.
        """
        self._step, self._saved = step, saved
        raise Preempted(f"stopped {self._tell(then)}")

    def __enter__(self) -> Self:
        # Python sets actions in the main thread only.
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        ):
            return self
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, _do_nothing)
        # A file that is being written may not know what to make of a call that was interrupted.
        signal.siginterrupt(signal.SIGTERM, False)
        self._watcher = threading.Thread(target=self._watch, name="preemption", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self._writer < 0:
            return
        signal.set_wakeup_fd(self._before)
        # A process that is on its way out with a status of its own is not to be cut short by one SIGTERM more.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if kind is Preempted else signal.SIG_DFL)
        os.close(self._writer)
        self._watcher.join()
        os.close(self._reader)

    def _watch(self) -> None:
        pause: float | None = None
        while True:
            if select.select([self._reader], [], [], pause)[0]:
                numbers = os.read(self._reader, 4096)
                if not numbers:
                    return
                if signal.SIGTERM in numbers:
                    self._asked.set()
            if self.asked and not self.agreed:
                self._look()
                pause = min(2 * pause, _LONGEST_PAUSE) if pause else _FIRST_LOOK

    def _look(self) -> None:
        if not self._holding:
            self._leave(self._tell)
        elif not all(map(_answers, self._peers)) and not self.agreed:
            self._leave(self._finish)

    def _leave(self, first: Callable[[], object]) -> None:
        """End the process from any thread: the main one may wait for a peer for ever."""
        self._leaving.acquire()  # and never released: who comes second waits for the end
        try:
            first()
        finally:
            os._exit(STATUS)

    def _tell(self, then: str = "") -> str:
        report("preempted", step=self._step, saved=self._saved)
        at = f"after step {self._step:,}" if self._step else "before the first step"
        what = "saved: run again to go on" if self._saved else "NOT SAVED" if self._step else "nothing to save"
        told = f"{at}, as SIGTERM asked; {then or what}"
        self._say("stopped", told)
        return told


def _answers(address: str) -> bool:
    """Whether somebody listens there. A process that has ended does not, whatever it held."""
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS):
        return True
    return False


def _do_nothing(*_: object) -> None:
    """Has Python's own handler write the signal's number to the watcher, in whatever code the main thread is."""
