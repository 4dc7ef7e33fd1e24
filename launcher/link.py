"""One agent, seen from the launcher: orders out, events in."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.agent import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from launcher.engines import Channel


_HIGH = 4 << 20
# Between two such, the other side is told how much has come.
_NEWS = 1 << 20
# Between two tries to reach a host again.
_PAUSE = 1.0


class Link:
    """The wire to one host's agent, over one connection or several in turn.

    Args:
        again: where a connection can be lost without its agent: gives another one, told how much of what the agent has said has
            arrived.
        lease: for how many seconds the agent waits for that.

    Attributes:
        heard: when the last bytes came (monotonic).
        lost: nothing more will come, and nothing can be sent.
        down: since when there has been no connection (monotonic); None while there is one.
        is_open: its channel's descriptors are there to be listened to.
        facts: what the agent said of its host; empty until it has said hello.
        took: seconds until it did.
    """

    def __init__(
        self,
        host: str,
        channel: Channel,
        *,
        again: Callable[[str, int], Channel | None] | None = None,
        lease: float = 0.0,
    ) -> None:
        self.host = host
        self.heard = self._since = time.monotonic()
        self.took = 0.0
        self.lost = False
        self.down: float | None = None
        self.leaving = False
        self.facts: Mapping[str, Any] = {}
        self._again = again
        self._lease = lease
        self._reader = wire.Reader()
        self._writer = wire.Writer(channel.stdin, keep=lease > 0)
        self._came = self._told = 0
        self._next: float | None = None
        self._ended = ""
        # What a suspended agent must hear of is on its way.
        self._urgent = False
        # What to add to the host's clock to get ours; the error is the travel time of the fastest frame that told it.
        self._offset = 0.0
        self._use(channel)

    def _use(self, channel: Channel) -> None:
        self.channel = channel
        self.is_open = True
        self._landed = channel.landed
        self._take_descriptors()

    def _take_descriptors(self) -> None:
        self._writer.descriptor = self.channel.stdin
        for descriptor in (self.channel.stdin, self.channel.stdout):
            os.set_blocking(descriptor, False)

    @property
    def pending(self) -> bool:
        """Orders are waiting for the descriptor to take them."""
        return self._landed and self._writer.pending > 0 and self.is_open

    def order(self, what: str, **fields: object) -> None:
        """Queue an order. The loop sends all that is queued at once before it waits, so that N spawns are one read."""
        self._writer.control({"do": what, **fields})
        self._urgent = self._urgent or what in {"stop", "kill", "bye"}

    def beat(self) -> None:
        """Tell that we live, and how much has come."""
        self._told = self._came
        self.order("ping", have=self._came)

    def file(self, number: int, data: bytes) -> None:
        """Queue a piece of a file."""
        self._writer.file(number, data)

    @property
    def full(self) -> bool:
        """As much is queued as is to be held in memory."""
        return self._writer.held > _HIGH

    def flush(self) -> None:
        """Send what is queued; a broken pipe shows itself as EOF on the other descriptor, with the reason."""
        if self._landed and self.is_open:
            with suppress(BrokenPipeError):
                self._writer.flush()
        if self._urgent:
            self._urgent = False
            self.channel.wake()

    def receive(self) -> Iterator[events.Event]:
        """Read once and yield what it means. EOF yields AgentLost, unless we had said bye, or LinkDown."""
        data = self.channel.read(4 * wire.CHUNK)
        if not self._landed:
            self._take_descriptors()
        if data is None:
            return
        self.heard = time.monotonic()
        if not data:
            yield from self.disconnect(None)
            return
        if not self._landed:
            data = self._land(data)
            if self._landed and self.down is not None:
                yield events.LinkUp(self.host, time.monotonic() - self.down)
                self.down = None
        try:
            self._came += len(data)
            for kind, task, payload in self._reader.feed(data):
                if kind == wire.OUTPUT:
                    yield events.TaskOutput(task, payload)
                elif kind == wire.FILE:
                    yield events.FilePiece(self.host, task, payload)
                else:
                    yield from self._understand(json.loads(payload))
        except (wire.WireError, ValueError, KeyError) as error:
            yield from self.give_up(f"sent something that is no frame of ours ({error})")
        if self._lease and self._came - self._told > _NEWS:
            self.beat()

    def _land(self, data: bytes) -> bytes:
        landing = self.channel.land(data)
        if landing.answer:
            self._writer.precede(landing.answer)
        self._landed = landing.rest is not None
        if landing.had is not None:
            self._writer.rewind(landing.had)
        return landing.rest or b""

    def disconnect(self, why: str | None) -> Iterator[events.Event]:
        """The connection is lost; ``why`` None: its end of the wire is closed, and how its carrier ended says why.

        That is the end of its agent, or LinkDown: for the time of the lease it may be met again.
        """
        ended = self._ended = self._close(why)
        now = time.monotonic()
        since = now if self.down is None else self.down
        waits = self._lease and self.facts and not self.leaving and not self.channel.deserted
        if not waits or now >= since + self._lease:
            yield from self.give_up(ended)
            return
        self._next = min(now + _PAUSE, since + self._lease)
        if self.down is None:
            self.down, self._next = now, now
            yield events.LinkDown(self.host, ended)

    def give_up(self, why: str) -> Iterator[events.Event]:
        """Take the agent for lost."""
        if self.lost:
            return
        if self.is_open:
            self._close(why)
        self.lost = True
        self.channel.abandon()
        if not self.leaving:
            yield events.AgentLost(self.host, self._epitaph(why))

    def _close(self, why: str | None) -> str:
        """Close the channel; returns why, in words."""
        if why is not None:
            # After EOF the carrier is left alone: it may be busy ending what the agent left behind.
            self.channel.kill()
        ended = self.channel.wait()
        self.channel.close()
        self.is_open = self._landed = False
        return why or ended

    def _epitaph(self, why: str) -> str:
        if self.channel.deserted:
            return self.channel.deserted
        return why if self.down is None else f"out of reach for {time.monotonic() - self.down:.0f} s: {why}"

    @property
    def next(self) -> float | None:
        """When to ``look`` for it (monotonic); None while there is nothing to look for."""
        if self.lost or self.down is None:
            return None
        return self.down + self._lease if self.is_open else self._next

    def look(self) -> Iterator[events.Event]:
        """Try to reach the host again, or give it up when its lease is over."""
        assert self.down is not None  # noqa: S101 - or nobody would look
        if time.monotonic() >= self.down + self._lease:
            yield from self.give_up("it does not answer" if self.is_open else self._ended)
            return
        self._next = None
        channel = self._again(self.host, self._came) if self._again else None
        if channel is None:
            yield from self.give_up("it is not met again")
        else:
            self._use(channel)

    def bye(self) -> None:
        """Tell the agent to end whatever is left, and to go."""
        self.leaving = True
        self.order("bye")

    def _understand(self, message: dict[str, Any]) -> Iterator[events.Event]:
        match message["do"]:
            case "hello":
                yield from self._welcome(message)
            case "lacking":
                yield events.TreeLacks(self.host, tuple(message["numbers"]))
            case "placed":
                yield events.TreePlaced(self.host, message["folder"])
            case "found":
                entries = tuple((path, mode, size) for path, mode, size, _ in message["entries"])
                yield events.FilesFound(self.host, entries)
            case "leased":
                yield events.PortsLeased(self.host, tuple(message["ports"]))
            case "connected":
                yield events.TasksConnected(self.host, tuple(message["addresses"]))
            case "line":
                yield events.LineSet(tuple(message["between"]), message["up"])
            case "released":
                yield events.PortsReleased(self.host)
            case "fault":
                named = {name: message[name] for name in ("task", "step") if name in message}
                yield events.AgentFault(self.host, message["order"], message["errno"], message["error"], **named)
            case "started":
                yield events.TaskStarted(message["task"], message["pid"])
            case "report":
                record = {**message["record"]}
                if isinstance(record.get("time"), int | float):
                    record["time"] += self._offset
                yield events.TaskReport(message["task"], record)
            case "ping":
                self._offset = min(self._offset, time.time() - message["clock"])
                self._writer.acknowledge(message["have"])
            case "listening":
                yield events.PortsListening(self.host, tuple(message["ports"]))
            case "answer":
                ahead = message["clock"] - time.time()
                yield events.HostAnswered(self.host, message["about"], message["said"], ahead)
            case "terminated":
                yield events.HostTerminated(self.host)
            case "stacks":
                yield events.TaskStacks(message["task"], message["state"], message["text"])
            case "called":
                yield events.HostCalled(self.host)
            case "stopped":
                yield events.TaskStopped(message["task"], message["time"] + self._offset)
            case "resumed":
                yield events.TaskResumed(message["task"], message["time"] + self._offset)
            case "signalled":
                yield events.TaskSignalled(message["task"], message["signal"], message["alive"])
            case "exited":
                yield self._exit(message)

    def _welcome(self, message: dict[str, Any]) -> Iterator[events.Event]:
        if message["protocol"] != wire.PROTOCOL:
            yield from self.give_up(f"speaks protocol {message['protocol']}, this launcher speaks {wire.PROTOCOL}")
            return
        self._offset = time.time() - message["facts"]["clock"]
        self.facts = message["facts"]
        self.took = time.monotonic() - self._since
        yield events.AgentReady(self.host, self.facts)

    def _exit(self, message: dict[str, Any]) -> events.TaskExited:
        return events.TaskExited(
            task=message["task"],
            status=message["status"],
            signal=message["signal"],
            core=message["core"],
            oom=message["oom"],
            sent=tuple(message["sent"]),
            peak=message["peak"],
            time=message["time"] + self._offset,
        )
