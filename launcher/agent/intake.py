"""What the workers write, on its way to the launcher. Where that is slow, they wait for it, as they would for a slow disk."""

from __future__ import annotations

import os
import selectors
import time

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
    """The workers' pipes.

    Args:
        on_report: is given what has come on a control descriptor.
        on_end: is told of a pipe that nobody writes to any more, once it is closed here.
        on_resumed: is told for how long nothing was taken in.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        tether: Tether,
        on_report: Callable[[Process, bytes], None],
        on_end: Callable[[Process], None],
        on_resumed: Callable[[float], None],
    ) -> None:
        self._selector = selector
        self._tether = tether
        self._on_report = on_report
        self._on_end = on_end
        self._on_resumed = on_resumed
        # By its number: a worker with a pipe that is listened to. And one whose pipe waits for all before it to be sent.
        self._heard: dict[int, Process] = {}
        self._put_off: dict[int, Process] = {}
        # Since when nothing is taken in.
        self._since: float | None = None
        # Whether what workers have written came in small pieces since the last look, and when it last did.
        self._spoken = False
        self._spoke = 0.0

    def add(self, process: Process) -> None:
        """Listen to one more worker."""
        for descriptor in process.open:
            self._heard[descriptor] = process
            if self._since is None:
                self._listen(descriptor)

    def close(self, process: Process, descriptor: int) -> None:
        """Listen no more to one of its pipes."""
        self._deafen(descriptor)
        self._put_off.pop(descriptor, None)
        del self._heard[descriptor]
        os.close(descriptor)
        process.open.discard(descriptor)
        self._on_end(process)

    def holds_back(self, process: Process) -> bool:
        """Whether what it has written is there, and waits for a slow launcher."""
        return self._since is not None or process in self._put_off.values()

    def flush(self) -> None:
        """Send what has been taken in, and take in more where that was what it waited for."""
        self._tether.flush()
        if self._since is not None and self._tether.relieved:
            held, self._since = time.monotonic() - self._since, None
            for descriptor in self._heard.keys() - self._put_off.keys():
                self._listen(descriptor)
            self._on_resumed(held)
        if self._put_off and self._since is None and self._tether.free:
            for descriptor in self._put_off:
                self._listen(descriptor)
            self._put_off.clear()

    def breathe(self) -> None:
        """Wait a moment, where output follows upon output; all that is there has been sent on."""
        if self._spoken:
            now = time.monotonic()
            if now < self._spoke + 2 * _BREATH:
                time.sleep(_BREATH)
            self._spoke, self._spoken = time.monotonic(), False

    def _listen(self, descriptor: int) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, self._on_readable)

    def _deafen(self, descriptor: int) -> None:
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    def _on_readable(self, descriptor: int) -> None:
        if self._since is not None:
            return  # since the select that told of it
        process = self._heard[descriptor]
        if descriptor != process.output or not self._pass_on(process, descriptor):
            self._take_in(process, descriptor)
        if self._tether.full:
            self._tether.flush()
            if self._tether.full:
                self._hold_back()

    def _pass_on(self, process: Process, output: int) -> bool:
        """Where there is much, it is sent without being read, as soon as nothing else has to go first. False: there is not."""
        count = self._tether.worth_passing_on(output)
        if not count:
            return False
        self._tether.flush()
        if self._tether.free:
            return self._tether.pass_on(process.number, output, count)
        self._deafen(output)
        self._put_off[output] = process
        return True

    def _take_in(self, process: Process, descriptor: int) -> None:
        data = os.read(descriptor, wire.CHUNK)
        if not data:
            self.close(process, descriptor)
        elif descriptor == process.output:
            self._spoken = self._spoken or len(data) < wire.LONG
            self._tether.output(process.number, data)
        else:
            self._on_report(process, data)

    def _hold_back(self) -> None:
        self._since = time.monotonic()
        for descriptor in self._heard:
            self._deafen(descriptor)
