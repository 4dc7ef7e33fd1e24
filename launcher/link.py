"""One agent, seen from the launcher: orders out, events in."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.agent import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from launcher.engines import Channel


_HIGH = 4 << 20


class Link:
    """The wire to one host's agent.

    Attributes:
        heard: when the last bytes came (monotonic).
        lost: nothing more will come, and nothing can be sent.
        facts: what the agent said of its host; empty until it has said hello.
        took: seconds until it did.
    """

    def __init__(self, host: str, channel: Channel) -> None:
        self.host = host
        self.channel = channel
        self.heard = self._since = time.monotonic()
        self.took = 0.0
        self.lost = False
        self.leaving = False
        self._landed = channel.landed
        self.facts: Mapping[str, Any] = {}
        self._reader = wire.Reader()
        self._writer = wire.Writer(channel.stdin)
        # What to add to the host's clock to get ours; the error is the travel time of the fastest frame that told it.
        self._offset = 0.0
        for descriptor in (channel.stdin, channel.stdout):
            os.set_blocking(descriptor, False)

    @property
    def pending(self) -> bool:
        """Orders are waiting for the descriptor to take them."""
        return self._landed and self._writer.pending > 0 and not self.lost

    def order(self, what: str, **fields: object) -> None:
        """Queue an order. The loop sends all that is queued at once before it waits, so that N spawns are one read."""
        self._writer.control({"do": what, **fields})
        if what in {"stop", "kill", "bye"}:
            self.channel.wake()

    def file(self, number: int, data: bytes) -> None:
        """Queue a piece of a file."""
        self._writer.file(number, data)

    @property
    def full(self) -> bool:
        """As much is queued as is to be held in memory."""
        return self._writer.pending > _HIGH

    def flush(self) -> None:
        """Send what is queued; a broken pipe shows itself as EOF on the other descriptor, with the reason."""
        if self._landed and not self.lost:
            try:
                self._writer.flush()
            except BrokenPipeError:
                return

    def receive(self) -> Iterator[events.Event]:
        """Read once and yield what it means. EOF yields AgentLost, unless we had said bye."""
        data = os.read(self.channel.stdout, 4 * wire.CHUNK)
        self.heard = time.monotonic()
        if not data:
            yield from self.give_up(None)
            return
        try:
            for kind, task, payload in self._reader.feed(data if self._landed else self._land(data)):
                if kind == wire.OUTPUT:
                    yield events.TaskOutput(task, payload)
                elif kind == wire.FILE:
                    yield events.FilePiece(self.host, task, payload)
                else:
                    yield from self._understand(json.loads(payload))
        except (wire.WireError, ValueError, KeyError) as error:
            yield from self.give_up(f"sent something that is no frame of ours ({error})")

    def _land(self, data: bytes) -> bytes:
        answer, rest = self.channel.land(data)
        if answer:
            self._writer.precede(answer)
        self._landed = rest is not None
        return rest or b""

    def give_up(self, why: str | None) -> Iterator[events.Event]:
        """Take the agent for lost; ``why`` None: its end of the wire is closed, and how its carrier ended says why."""
        if self.lost:
            return
        self.lost = True
        if why is not None:
            # After EOF the carrier is left alone: it may be busy ending what the agent left behind.
            self.channel.kill()
        ended = self.channel.wait()
        self.channel.close()
        if not self.leaving:
            yield events.AgentLost(self.host, why or ended)

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
                yield events.AgentFault(
                    self.host, message["order"], message["errno"], message["error"], message.get("task")
                )
            case "started":
                yield events.TaskStarted(message["task"], message["pid"])
            case "report":
                record = {**message["record"]}
                if isinstance(record.get("time"), int | float):
                    record["time"] += self._offset
                yield events.TaskReport(message["task"], record)
            case "ping":
                self._offset = min(self._offset, time.time() - message["clock"])
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
