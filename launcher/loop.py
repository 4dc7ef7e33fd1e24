"""The launcher's one loop over descriptors, signals and timers; everything that happens comes out of it as an event."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from launcher import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from launcher.console import Console
    from launcher.door import Door
    from launcher.link import Link

# SIGUSR1 is a scheduler's warning that the time is nearly over.
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# What wakes the loop without being the number of a signal.
_NEWS = b"\0"
_HEARTBEAT = 2.0
_LONGEST_WAIT = 86_400.0


class Loop:
    """Waits for whatever comes next. As a context manager it takes over the signals that ask a program to stop."""

    def __init__(self, console: Console, silence: float | None) -> None:
        self._console = console
        self._silence = silence
        self._selector = selectors.DefaultSelector()
        self._links: list[Link] = []
        self._timers: dict[str, tuple[float, Callable[[], None] | None]] = {}
        self._posted: deque[events.Event] = deque()
        self._beat = time.monotonic()
        self._previous: dict[int, object] = {}
        self._previous_waker: int | None = None
        self._wakeup, self._waker = os.pipe()
        for descriptor in (self._wakeup, self._waker):
            os.set_blocking(descriptor, False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._signals)

    def __enter__(self) -> Loop:
        # Python lets the main thread alone handle signals; elsewhere whoever started us stops us.
        with suppress(ValueError):
            self._previous_waker = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
            for number in _STOPS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                    self._previous[number] = signal.signal(number, _noted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous_waker is not None:
            signal.set_wakeup_fd(self._previous_waker)
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal itself returned
        self._selector.close()
        os.close(self._wakeup)
        os.close(self._waker)

    def add(self, link: Link) -> None:
        """Listen to one more agent."""
        self._links.append(link)
        self._listen(link)

    def _listen(self, link: Link) -> None:
        self._selector.register(link.channel.stdout, selectors.EVENT_READ, partial(self._read, link))

    def send(self) -> None:
        """Send what has been ordered, as far as the agents take it, instead of when it waits."""
        for link in self._links:
            link.flush()

    def open(self, door: Door) -> None:
        """Listen to visitors."""
        self._selector.register(door, selectors.EVENT_READ, door.receive)

    def drop(self, link: Link, why: str) -> Iterator[events.Event]:
        """Take an agent for lost, and listen to it no more."""
        self._forget(link)
        yield from link.give_up(why)

    def _forget(self, link: Link) -> None:
        for descriptor in (link.channel.stdin, link.channel.stdout) if link.is_open else ():
            if descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)

    def set_timer(self, name: str, seconds: float, then: Callable[[], None] | None = None) -> None:
        """Post DeadlinePassed(name) once, after that time; or do ``then`` instead, which is nobody else's business."""
        self._timers[name] = time.monotonic() + seconds, then

    def cancel_timer(self, name: str) -> None:
        """Forget a timer."""
        self._timers.pop(name, None)

    def post(self, event: events.Event) -> None:
        """From any thread: have ``wait`` yield this event, and wake it where it waits."""
        self._posted.append(event)
        with suppress(BlockingIOError):  # so many are waiting that it will wake anyway
            os.write(self._waker, _NEWS)

    def wait(self) -> Iterator[events.Event]:
        """Wait until something happens, and yield it all."""
        self._arrange_writes()
        for key, _ in self._selector.select(self._until_next()):
            if key.data is not None:  # what can be written to only has to wake us
                yield from key.data()
        self._console.flush()
        self._console.give_way()
        yield from self._on_time()

    def _read(self, link: Link) -> Iterator[events.Event]:
        if not link.is_open:
            return  # what else happened at the same moment has closed it
        descriptors = link.channel.stdin, link.channel.stdout
        yield from link.receive()
        if not link.is_open or descriptors != (link.channel.stdin, link.channel.stdout):
            for descriptor in descriptors:
                if descriptor in self._selector.get_map():
                    self._selector.unregister(descriptor)
            if link.is_open:
                self._listen(link)

    def _signals(self) -> Iterator[events.Event]:
        with suppress(BlockingIOError):
            for number in os.read(self._wakeup, 4096):
                if number in _STOPS:
                    yield events.Signalled(number)
        while self._posted:
            yield self._posted.popleft()

    def _arrange_writes(self) -> None:
        """Ask to be woken for exactly those descriptors for which something waits to be written."""
        self.send()
        wanted = {link.channel.stdin for link in self._links if link.pending}
        blocked = None if self._console.flush() else self._console.blocked_on
        if blocked is not None:
            wanted.add(blocked)
        watched = {key.fd for key in self._selector.get_map().values() if key.events == selectors.EVENT_WRITE}
        for descriptor in watched - wanted:
            self._selector.unregister(descriptor)
        for descriptor in wanted - watched:
            self._selector.register(descriptor, selectors.EVENT_WRITE)

    def _until_next(self) -> float | None:
        moments = [at for at, _ in self._timers.values()]
        moments += [link.next for link in self._links if link.next is not None]
        if self._silence is not None:
            moments.append(self._beat + _HEARTBEAT)
        # epoll counts milliseconds in an int: some 24 days are as long as it can wait.
        return min(_LONGEST_WAIT, max(0.0, min(moments) - time.monotonic())) if moments else None

    def _on_time(self) -> Iterator[events.Event]:
        now = time.monotonic()
        for name in [name for name, (at, _) in self._timers.items() if now >= at]:
            _, then = self._timers.pop(name)
            if then is None:
                yield events.DeadlinePassed(name)
            else:
                then()
        yield from self._look_for(now)
        if self._silence is not None and now - self._beat >= _HEARTBEAT:
            self._beat = now
            yield from self._check_hearts(now, self._silence)

    def _check_hearts(self, now: float, silence: float) -> Iterator[events.Event]:
        for link in self._links:
            if not link.is_open or link.down is not None:
                continue
            link.beat()
            # Until it has said hello, it is whoever waits for that who loses patience.
            if link.facts and now - link.heard > silence:
                self._forget(link)
                yield from link.disconnect(f"not heard of for {silence:g} s")

    def _look_for(self, now: float) -> Iterator[events.Event]:
        for link in self._links:
            if link.next is not None and now >= link.next:
                self._forget(link)
                yield from link.look()
                if link.is_open:
                    self._listen(link)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor carries the news; Python only needs a handler to be there."""
