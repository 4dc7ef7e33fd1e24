from __future__ import annotations

import json
import os
import select
import threading
import time
from contextlib import suppress
from typing import Any
from weakref import finalize

import pytest

from launcher import events
from launcher.agent import wire
from launcher.engines import Landing
from launcher.link import Link


class Wire:
    """An agent's end of the wire, and the channel that a link is given."""

    def __init__(self) -> None:
        self.orders_end, self.stdin = os.pipe()
        self.stdout, self.words_end = os.pipe()
        self.deeds: list[str] = []
        self._held = {self.orders_end, self.stdin, self.stdout, self.words_end}
        finalize(self, _let_go, self._held)

    hint = ""
    landed = True
    turned_away = False
    stranded = False
    deserted = ""

    def read(self, size: int) -> bytes:
        return os.read(self.stdout, size)

    def land(self, data: bytes) -> Landing:
        return Landing(rest=data)

    def wait(self) -> str:
        self.deeds.append("wait")
        return "it ended with status 3"

    def wake(self) -> None:
        pass

    def kill(self) -> None:
        self.deeds.append("kill")

    def close(self) -> None:
        self.deeds.append("close")
        self._close(self.stdin, self.stdout)

    def abandon(self) -> None:
        self.deeds.append("abandon")

    def hang_up(self) -> None:
        """Be an agent that has ended."""
        self._close(self.words_end)

    def turn_deaf(self) -> None:
        """Be one that takes no more orders."""
        self._close(self.orders_end)

    def _close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            self._held.remove(descriptor)
            os.close(descriptor)

    def says(self, data: bytes) -> None:
        os.write(self.words_end, data)

    def tells(self, do: str, **fields: object) -> None:
        self.says(wire.control({"do": do, **fields}))

    def heard(self) -> bytes:
        os.set_blocking(self.orders_end, False)
        with suppress(BlockingIOError):
            return os.read(self.orders_end, 1 << 20)
        return b""


def _let_go(held: set[int]) -> None:
    for descriptor in held:
        os.close(descriptor)


@pytest.fixture
def agent() -> Wire:
    return Wire()


@pytest.fixture
def link(agent: Wire) -> Link:
    return Link("a", agent)


def hello(clock: float, protocol: int = wire.PROTOCOL) -> bytes:
    return wire.control({"do": "hello", "protocol": protocol, "facts": {"clock": clock, "cores": [0]}})


EXITED = {"task": 1, "status": 3, "signal": None, "core": False, "oom": False, "sent": ["SIGTERM"], "peak": 5}


class TestReceive:
    def test_hello(self, link: Link, agent: Wire) -> None:
        agent.says(hello(5.0))
        assert list(link.receive()) == [events.AgentReady("a", {"clock": 5.0, "cores": [0]})]

    @pytest.mark.parametrize(
        ("do", "fields", "expected"),
        [
            ("leased", {"ports": [1, 2]}, events.PortsLeased("a", (1, 2))),
            ("released", {}, events.PortsReleased("a")),
            ("started", {"task": 1, "pid": 9}, events.TaskStarted(1, 9)),
            ("stacks", {"task": 1, "state": "S", "text": "File"}, events.TaskStacks(1, "S", "File")),
            ("called", {}, events.HostCalled("a")),
            (
                "signalled",
                {"task": 1, "signal": "SIGSTOP", "alive": True},
                events.TaskSignalled(1, "SIGSTOP", alive=True),
            ),
            (
                "fault",
                {"order": "spawn", "task": 1, "errno": 11, "error": "no"},
                events.AgentFault("a", "spawn", 11, "no", 1),
            ),
            ("fault", {"order": "lease", "errno": 98, "error": "no"}, events.AgentFault("a", "lease", 98, "no", None)),
            (
                "report",
                {"task": 1, "record": {"kind": "state", "state": "up"}},
                events.TaskReport(1, {"kind": "state", "state": "up"}),
            ),
            (
                "exited",
                {**EXITED, "time": 10.0},
                events.TaskExited(1, 3, None, False, False, ("SIGTERM",), 5, 10.0),
            ),
        ],
    )
    def test_each_message(
        self, link: Link, agent: Wire, do: str, fields: dict[str, Any], expected: events.Event
    ) -> None:
        agent.tells(do, **fields)
        assert list(link.receive()) == [expected]

    def test_a_ping_is_no_event(self, link: Link, agent: Wire) -> None:
        agent.tells("ping", clock=1.0, have=0)
        assert list(link.receive()) == []

    def test_output_is_what_the_worker_wrote(self, link: Link, agent: Wire) -> None:
        agent.says(wire.HEADER.pack(wire.OUTPUT, 7, 3) + b"\xff\r\n")
        assert list(link.receive()) == [events.TaskOutput(7, b"\xff\r\n")]

    def test_frames_may_come_in_pieces(self, link: Link, agent: Wire) -> None:
        frames = hello(5.0) + wire.control({"do": "started", "task": 0, "pid": 1})
        found = []
        for i in range(len(frames)):
            agent.says(frames[i : i + 1])
            found += list(link.receive())
        assert [type(event) for event in found] == [events.AgentReady, events.TaskStarted]

    def test_times_of_the_host_become_ours(self, link: Link, agent: Wire) -> None:
        fast = time.time() + 3600
        agent.says(hello(fast))
        agent.tells("report", task=1, record={"kind": "error", "time": fast})
        agent.tells("exited", **EXITED, time=fast)
        _, report, exited = link.receive()
        assert isinstance(report, events.TaskReport)
        assert isinstance(exited, events.TaskExited)
        assert abs(report.record["time"] - time.time()) < 60
        assert abs(exited.time - time.time()) < 60

    def test_it_knows_when_it_last_heard(self, link: Link, agent: Wire) -> None:
        link.heard = 0.0
        agent.tells("ping", clock=1.0, have=0)
        assert list(link.receive()) == []
        assert link.heard > 0.0


class Travelling(Wire):
    """What has still to come to its host."""

    landed = False

    def land(self, data: bytes) -> Landing:
        _, mark, rest = data.partition(b"MARK")
        return Landing(b"the rest of me", rest) if mark else Landing()


class TestLanding:
    def test_nothing_is_sent_until_it_is_there_and_then_first_what_it_lacks(self) -> None:
        agent = Travelling()
        link = Link("a", agent)
        link.order("ping")
        link.flush()
        agent.says(b"welcome to this host")
        assert list(link.receive()) == []
        assert not link.pending
        assert agent.heard() == b""
        agent.says(b"MARK" + hello(5.0))
        assert [type(event) for event in link.receive()] == [events.AgentReady]
        assert link.pending
        link.flush()
        assert agent.heard() == b"the rest of me" + wire.control({"do": "ping"})


class Returning(Wire):
    """A connection to an agent that was there before, and has had so much of what it was told."""

    landed = False

    def __init__(self, had: int) -> None:
        super().__init__()
        self.had = had

    def land(self, data: bytes) -> Landing:
        return Landing(rest=data.removeprefix(b"MARK"), had=self.had)


class TestReconnect:
    @pytest.fixture
    def comes(self) -> list[Wire]:
        """What comes when it is looked for."""
        return []

    @pytest.fixture
    def leased(self, agent: Wire, comes: list[Wire]) -> Link:
        link = Link("a", agent, again=lambda *_: comes.pop(0) if comes else None, lease=60.0)
        agent.says(hello(5.0))
        list(link.receive())
        return link

    def test_what_has_come_is_kept_no_longer(self, leased: Link, agent: Wire) -> None:
        """Else a tree of more than is held in memory would never be sent to its end."""
        piece = bytes(8 << 10)
        sent = 0
        while not leased.full:
            leased.file(0, piece)
            leased.flush()
            sent += len(agent.heard())
        agent.tells("ping", clock=1.0, have=sent)
        assert list(leased.receive()) == []
        assert not leased.full
        assert leased._writer.held == 0

    def test_what_was_on_its_way_comes_again_both_ways(self, leased: Link, agent: Wire, comes: list[Wire]) -> None:
        leased.order("stop", task=1)
        leased.order("stop", task=2)
        leased.flush()
        agent.says(wire.HEADER.pack(wire.OUTPUT, 7, 6) + b"abc")
        assert list(leased.receive()) == []
        agent.hang_up()
        assert list(leased.receive()) == [events.LinkDown("a", "it ended with status 3")]
        leased.order("kill", task=3)
        assert not leased.pending
        comes.append(Returning(had=len(wire.control({"do": "stop", "task": 1}))))
        assert list(leased.look()) == []
        comes_back = leased.channel
        assert isinstance(comes_back, Returning)
        comes_back.says(b"MARKdef")
        up, output = leased.receive()
        assert isinstance(up, events.LinkUp)
        assert output == events.TaskOutput(7, b"abcdef")
        leased.flush()
        assert comes_back.heard() == wire.control({"do": "stop", "task": 2}) + wire.control({"do": "kill", "task": 3})

    def test_it_is_looked_for_at_once_and_then_now_and_then(self, leased: Link, agent: Wire, comes: list[Wire]) -> None:
        agent.hang_up()
        list(leased.receive())
        assert leased.next == leased.down
        comes.append(Returning(0))
        list(leased.look())
        leased.channel.hang_up()  # type: ignore[attr-defined]
        assert list(leased.receive()) == []
        assert leased.next is not None
        assert leased.down is not None
        assert leased.down < leased.next <= leased.down + 60

    def test_after_the_lease_it_is_lost(self, leased: Link, agent: Wire) -> None:
        agent.hang_up()
        list(leased.receive())
        assert leased.down is not None
        leased.down -= 61
        (lost,) = leased.look()
        assert lost == events.AgentLost("a", "out of reach for 61 s: it ended with status 3")
        assert leased.next is None

    def test_a_host_without_its_agent_ends_it(self, leased: Link, agent: Wire, comes: list[Wire]) -> None:
        agent.hang_up()
        list(leased.receive())
        comes.append(Returning(0))
        comes[0].deserted = "its host answers, but the agent is gone"
        list(leased.look())
        leased.channel.hang_up()  # type: ignore[attr-defined]
        (lost,) = leased.receive()
        assert isinstance(lost, events.AgentLost)
        assert "the agent is gone" in lost.why

    def test_before_hello_there_is_nothing_to_come_back_to(self, agent: Wire) -> None:
        link = Link("a", agent, again=lambda *_: None, lease=60.0)
        agent.hang_up()
        assert list(link.receive()) == [events.AgentLost("a", "it ended with status 3")]

    def test_the_other_side_is_told_how_much_has_come(self, leased: Link, agent: Wire) -> None:
        size = 1_200_000
        frame = wire.HEADER.pack(wire.OUTPUT, 7, size) + bytes(size)
        writer = threading.Thread(target=lambda: agent.says(frame))
        writer.start()
        found: list[events.Event] = []
        while not found:
            select.select([agent.stdout], [], [])
            found += leased.receive()
        writer.join()
        leased.flush()
        (told,) = [json.loads(payload) for _, _, payload in wire.Reader().feed(agent.heard())][-1:]
        assert told["do"] == "ping"
        assert told["have"] > 1 << 20


class TestLoss:
    def test_at_the_end_of_the_wire_its_carrier_says_why(self, link: Link, agent: Wire) -> None:
        agent.hang_up()
        assert list(link.receive()) == [events.AgentLost("a", "it ended with status 3")]
        assert link.lost
        assert agent.deeds == ["wait", "close", "abandon"]

    def test_after_bye_it_is_no_loss(self, link: Link, agent: Wire) -> None:
        link.bye()
        agent.hang_up()
        assert list(link.receive()) == []
        assert link.lost
        assert agent.deeds == ["wait", "close", "abandon"]

    @pytest.mark.parametrize("noise", [b"Welcome to host a!\n", b"\xff" * 100])
    def test_what_is_no_frame_of_ours_ends_it(self, link: Link, agent: Wire, noise: bytes) -> None:
        agent.says(noise)
        (event,) = link.receive()
        assert isinstance(event, events.AgentLost)
        assert "no frame of ours" in event.why
        assert repr(noise[:7])[2:-1] in event.why
        assert agent.deeds == ["kill", "wait", "close", "abandon"]

    def test_another_protocol_ends_it(self, link: Link, agent: Wire) -> None:
        agent.says(hello(5.0, protocol=99))
        (event,) = link.receive()
        assert event == events.AgentLost("a", f"speaks protocol 99, this launcher speaks {wire.PROTOCOL}")
        assert agent.deeds == ["kill", "wait", "close", "abandon"]

    def test_it_is_told_once(self, link: Link, agent: Wire) -> None:
        assert list(link.give_up("silent")) == [events.AgentLost("a", "silent")]
        assert list(link.give_up("again")) == []
        assert agent.deeds == ["kill", "wait", "close", "abandon"]


class TestOrders:
    def test_they_go_out_together(self, link: Link, agent: Wire) -> None:
        link.order("stop", task=1, grace=2.5)
        link.order("kill", task=2)
        assert agent.heard() == b""
        assert link.pending
        link.flush()
        assert not link.pending
        assert agent.heard() == wire.control({"do": "stop", "task": 1, "grace": 2.5}) + wire.control(
            {"do": "kill", "task": 2}
        )

    def test_a_full_wire_does_not_block(self, link: Link, agent: Wire) -> None:
        order = {"do": "spawn", "env": {"A": "x" * 1_000_000}}
        link.order("spawn", env=order["env"])
        link.flush()
        assert link.pending
        received = b""
        while link.pending:
            received += agent.heard()
            link.flush()
        assert received + agent.heard() == wire.control(order)

    def test_a_broken_wire_is_left_to_the_other_direction(self, link: Link, agent: Wire) -> None:
        agent.turn_deaf()
        link.order("ping")
        link.flush()
        assert not link.lost

    def test_a_lost_agent_gets_none(self, link: Link) -> None:
        list(link.give_up("gone"))
        link.order("ping")
        link.flush()
        assert not link.pending
