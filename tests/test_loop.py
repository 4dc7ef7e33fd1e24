from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from launcher import events
from launcher.agent import wire
from launcher.console import Console
from launcher.door import Door, reachable
from launcher.link import Link
from launcher.loop import Loop
from tests.test_link import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def agent() -> Wire:
    return Wire()


@pytest.fixture
def link(agent: Wire) -> Link:
    return Link("a", agent)


@pytest.fixture
def screen() -> Iterator[tuple[int, int]]:
    pair = os.pipe()
    yield pair
    for descriptor in pair:
        os.close(descriptor)


@pytest.fixture
def console(screen: tuple[int, int]) -> Iterator[Console]:
    with Console("all", stdout=screen[1], stderr=screen[1]) as made:
        yield made


@pytest.fixture
def loop(console: Console) -> Iterator[Loop]:
    with Loop(console, None) as made:
        yield made


def next_event(loop: Loop) -> events.Event:
    """Wait, however often it takes, for the one thing that happens."""
    while not (found := list(loop.wait())):
        pass
    (event,) = found
    return event


class TestLinks:
    def test_what_an_agent_says_comes_out(self, loop: Loop, link: Link, agent: Wire) -> None:
        loop.add(link)
        os.write(agent.words_end, wire.control({"do": "started", "task": 0, "pid": 1}))
        assert next_event(loop) == events.TaskStarted(0, 1)

    def test_orders_are_sent_before_it_waits(self, loop: Loop, link: Link, agent: Wire) -> None:
        loop.add(link)
        link.order("bye")
        loop.set_timer("now", 0)
        next_event(loop)
        assert os.read(agent.orders_end, 1000) == wire.control({"do": "bye"})

    def test_orders_need_not_wait_for_that(self, loop: Loop, link: Link, agent: Wire) -> None:
        loop.add(link)
        link.order("bye")
        loop.send()
        assert os.read(agent.orders_end, 1000) == wire.control({"do": "bye"})

    def test_a_long_order_is_sent_as_the_agent_reads(self, loop: Loop, link: Link, agent: Wire) -> None:
        order = wire.control({"do": "spawn", "argv": "x" * 1_000_000})
        received = bytearray()

        def read() -> None:
            while len(received) < len(order):
                received.extend(os.read(agent.orders_end, 1 << 20))
            os.write(agent.words_end, wire.control({"do": "started", "task": 0, "pid": 1}))

        loop.add(link)
        link.order("spawn", argv="x" * 1_000_000)
        reader = threading.Thread(target=read)
        reader.start()
        assert next_event(loop) == events.TaskStarted(0, 1)
        reader.join()
        assert received == order

    def test_one_that_is_dropped_for_what_another_says_at_the_same_moment(self, loop: Loop) -> None:
        agents = {name: Wire() for name in ("a", "b")}
        links = {name: Link(name, agent) for name, agent in agents.items()}
        for name, link in links.items():
            loop.add(link)
            agents[name].tells("released")
        heard: list[str] = []
        for event in loop.wait():
            assert isinstance(event, events.PortsReleased)
            heard.append(event.host)
            for name in links.keys() - {event.host}:
                list(loop.drop(links[name], "it is not needed any more"))
        assert len(heard) == 1

    def test_a_lost_agent_is_told_of_once(self, loop: Loop, link: Link, agent: Wire) -> None:
        loop.add(link)
        agent.hang_up()
        assert next_event(loop) == events.AgentLost("a", "it ended with status 3")
        loop.set_timer("later", 0)
        assert next_event(loop) == events.DeadlinePassed("later")


class TestTimers:
    def test_they_pass_in_time_and_once(self, loop: Loop) -> None:
        began = time.monotonic()
        loop.set_timer("late", 0.05)
        loop.set_timer("early", 0.01)
        assert [next_event(loop), next_event(loop)] == [events.DeadlinePassed("early"), events.DeadlinePassed("late")]
        assert time.monotonic() - began >= 0.05

    def test_one_that_is_set_again_starts_again(self, loop: Loop) -> None:
        loop.set_timer("a", 0)
        loop.set_timer("a", 3600)
        loop.set_timer("b", 0)
        assert next_event(loop) == events.DeadlinePassed("b")

    def test_one_that_is_cancelled_never_passes(self, loop: Loop) -> None:
        loop.set_timer("a", 0)
        loop.set_timer("b", 0)
        loop.cancel_timer("a")
        loop.cancel_timer("was never set")
        assert next_event(loop) == events.DeadlinePassed("b")


class TestPost:
    def test_another_thread_wakes_it(self, loop: Loop) -> None:
        order = events.FaultOrdered(1, "kill")
        poster = threading.Thread(target=loop.post, args=(order,))
        poster.start()
        assert next_event(loop) == order
        poster.join()

    def test_nothing_is_lost_however_much_comes(self, loop: Loop) -> None:
        for task in range(100_000):
            loop.post(events.TaskStarted(task, 1))
        found: list[events.Event] = []
        while len(found) < 100_000:
            found += loop.wait()
        assert found[-1] == events.TaskStarted(99_999, 1)


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_those_that_ask_to_stop_are_events(self, loop: Loop, number: signal.Signals) -> None:
        signal.raise_signal(number)
        assert next_event(loop) == events.Signalled(number)

    def test_each_one_counts(self, loop: Loop) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        found: list[events.Event] = []
        while len(found) < 2:
            found += loop.wait()
        assert found == [events.Signalled(2), events.Signalled(2)]

    def test_handlers_are_put_back(self, console: Console) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        with Loop(console, None):
            assert signal.getsignal(signal.SIGTERM) != before[1]
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before

    def test_what_nohup_ignores_stays_ignored(self, console: Console) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with Loop(console, None):
                assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_in_another_thread_they_are_left_alone(self, console: Console) -> None:
        found: list[events.Event] = []

        def work() -> None:
            with Loop(console, None) as loop:
                loop.set_timer("a", 0)
                found.append(next_event(loop))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found == [events.DeadlinePassed("a")]


class TestSilence:
    def test_an_agent_that_says_nothing_is_lost(
        self, console: Console, link: Link, agent: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("launcher.loop._HEARTBEAT", 0.01)
        link.facts = {"clock": 0.0}
        with Loop(console, 0.05) as loop:
            loop.add(link)
            assert next_event(loop) == events.AgentLost("a", "not heard of for 0.05 s")
        assert wire.control({"do": "ping", "have": 0}) in os.read(agent.orders_end, 1 << 16)

    def test_one_that_has_not_said_hello_may_still_be_on_its_way(
        self, console: Console, link: Link, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("launcher.loop._HEARTBEAT", 0.0)
        with Loop(console, 0.0) as loop:
            loop.add(link)
            loop.set_timer("later", 0.01)
            assert next_event(loop) == events.DeadlinePassed("later")
        assert not link.lost

    def test_where_the_kernel_tells_silence_means_nothing(
        self, loop: Loop, link: Link, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("launcher.loop._HEARTBEAT", 0.0)
        loop.add(link)
        link.heard = 0.0
        loop.set_timer("later", 0)
        assert next_event(loop) == events.DeadlinePassed("later")
        assert not link.lost


class TestConsole:
    def test_it_is_written_to_as_its_reader_reads(
        self, loop: Loop, console: Console, screen: tuple[int, int], agent: Wire, link: Link
    ) -> None:
        text = "x" * 1_000_000
        received = bytearray()

        def read() -> None:
            while len(received) < len(text):
                received.extend(os.read(screen[0], 1 << 16))
            os.write(agent.words_end, wire.control({"do": "started", "task": 0, "pid": 1}))

        loop.add(link)
        console.say(text)
        reader = threading.Thread(target=read)
        reader.start()
        assert next_event(loop) == events.TaskStarted(0, 1)
        reader.join()

    def test_a_frozen_one_holds_nobody_up(self, loop: Loop, console: Console, link: Link, agent: Wire) -> None:
        console.say("x" * 1_000_000)
        loop.add(link)
        os.write(agent.words_end, wire.control({"do": "started", "task": 0, "pid": 1}))
        assert next_event(loop) == events.TaskStarted(0, 1)


class TestDoor:
    def test_what_visitors_want_comes_out_while_it_is_open(self, loop: Loop, tmp_path: Path) -> None:
        with (
            Door({"stacks": lambda _: [events.StacksAsked()]}) as door,
            closing(socket.socket(socket.AF_UNIX)) as visitor,
        ):
            door.listen(tmp_path)
            loop.open(door)
            with reachable(tmp_path) as path:
                visitor.connect(path)
            visitor.sendall(b'{"do": "stacks"}\n')
            assert next_event(loop) == events.StacksAsked()
        loop.set_timer("later", 0)
        assert next_event(loop) == events.DeadlinePassed("later")


def test_what_is_done_later_is_no_event(loop: Loop) -> None:
    done: list[bool] = []
    loop.set_timer("chore", 0, lambda: done.append(True))
    while not done:
        assert list(loop.wait()) == []
