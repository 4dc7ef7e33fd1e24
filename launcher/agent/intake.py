"""What the workers write, on its way to the launcher. Where that is slow, they wait for it, as they would for a slow disk."""

from __future__ import annotations

import os
import selectors
import time
from functools import partial

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Process
    from .tether import Tether

# Where workers write without a pause, what comes in so many seconds is taken at once: to take each line by itself costs more CPU
# than to write it, and they may be short of that.
_BREATH = 0.001


class Intake:
    """The workers' pipes. One that has something while there is no room for it is heard again when there is.

    Args:
        on_report: is given what has come on a control descriptor.
        on_end: is told of a pipe that nobody writes to any more, once it is closed here.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        tether: Tether,
        on_report: Callable[[Process, bytes], None],
        on_end: Callable[[Process], None],
    ) -> None:
        self._selector = selector
        self._tether = tether
        self._on_report = on_report
        self._on_end = on_end
        self._put_off: dict[int, Process] = {}
        # Whether what workers have written came in small pieces since the last look, and when it last did.
        self._spoken = False
        self._spoke = 0.0

    def add(self, process: Process) -> None:
        """Listen to one more worker."""
        for descriptor in process.open:
            self._listen(process, descriptor)

    def close(self, process: Process, descriptor: int) -> None:
        """Listen no more to one of its pipes."""
        if self._put_off.pop(descriptor, None) is None:
            self._selector.unregister(descriptor)
        os.close(descriptor)
        process.open.discard(descriptor)
        self._on_end(process)

    def keeps_waiting(self, process: Process) -> bool:
        """Whether what it has written is there, and there is no room for it."""
        return process in self._put_off.values()

    def flush(self) -> None:
        """Send what has been taken in, and see to those who wait for that."""
        self._tether.flush()
        if self._put_off and self._tether.relieved:
            for descriptor, process in self._put_off.items():
                self._listen(process, descriptor)
            self._put_off.clear()

    def breathe(self) -> None:
        """Wait a moment, where output follows upon output; all that is there has been sent on."""
        if self._spoken:
            now = time.monotonic()
            if now < self._spoke + 2 * _BREATH:
                time.sleep(_BREATH)
            self._spoke, self._spoken = time.monotonic(), False

    def _listen(self, process: Process, descriptor: int) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, partial(self._on_readable, process))

    def _on_readable(self, process: Process, descriptor: int) -> None:
        count = self._tether.worth_passing_on(descriptor) if descriptor == process.output else 0
        if not self._is_room(count):
            self._tether.flush()
        if not self._is_room(count):
            self._selector.unregister(descriptor)
            self._put_off[descriptor] = process
        elif not count or not self._tether.pass_on(process.number, descriptor, count):
            self._take_in(process, descriptor)

    def _is_room(self, count: int) -> bool:
        """Whether it can be queued, or, where there is so much to pass on, goes next."""
        return self._tether.relieved if count else not self._tether.full

    def _take_in(self, process: Process, descriptor: int) -> None:
        data = os.read(descriptor, wire.CHUNK)
        if not data:
            self.close(process, descriptor)
        elif descriptor == process.output:
            self._spoken = self._spoken or len(data) < wire.LONG
            self._tether.output(process.number, data)
        else:
            self._on_report(process, data)
