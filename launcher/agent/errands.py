"""Questions whose answer takes its time, or never comes: a name server that is silent, a disk that is not there.

Each is a child's, so that the loop waits for none of them. A child ends with the loop, whatever it waits for.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
from functools import partial

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CHUNK = 1 << 16


class Errands:
    """The children that are on their way. ``answer`` is called with what it is about, and what one has found out."""

    def __init__(self, selector: selectors.BaseSelector, answer: Callable[[str, object], None]) -> None:
        self._selector = selector
        self._answer = answer
        self.children: set[int] = set()

    def begin(self, about: str, question: dict[str, Any]) -> None:
        """Send a child to find out."""
        read, write = os.pipe()
        pid = _fork(about, question, write)
        os.close(write)
        self.children.add(pid)
        self._selector.register(read, selectors.EVENT_READ, partial(self._on_words, about, pid, bytearray()))

    def _on_words(self, about: str, pid: int, words: bytearray, descriptor: int) -> None:
        if data := os.read(descriptor, _CHUNK):
            words += data
            return
        self._selector.unregister(descriptor)
        os.close(descriptor)
        self.children.discard(pid)
        self._answer(about, json.loads(words) if words else None)


def _fork(about: str, question: dict[str, Any], write: int) -> int:
    parent = os.getpid()
    # Until it has handlers of its own, the child would answer SIGTERM through the loop's wakeup pipe.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        pid = os.fork()
        if pid == 0:
            _go(about, question, write, parent)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _go(about: str, question: dict[str, Any], write: int, parent: int) -> None:
    """In the child: find out, tell, and end. Never returns; what fails is told on stderr, which is the agent's log."""
    try:
        kernel.die_with_parent(signal.SIGKILL, parent)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        # The loop's own, ports that are listened on among them.
        os.closerange(3, write)
        os.closerange(write + 1, os.sysconf("SC_OPEN_MAX"))
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1):  # the wire
            os.dup2(null, descriptor)
        answer = _found_out(about, question)
        with open(write, "w") as file:
            json.dump(answer, file)
    except Exception:  # noqa: BLE001 - see above
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _found_out(about: str, question: dict[str, Any]) -> object:
    match about:
        case "dial":
            from .dialling import dial

            return dial(question["places"], question["seconds"])
        case "premises":
            from .premises import premises

            return premises(**question)
        case "leftovers":
            from .leftovers import leftovers

            return leftovers()
        case "tidy":
            from .leftovers import tidy

            return tidy()
    return None
