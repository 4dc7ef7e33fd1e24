"""Many agents at once: those that come, those that do not, and what ends the waiting for them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from launcher import agents as agents_module
from launcher import events
from launcher.agent import wire
from launcher.agents import Agents
from launcher.console import Console
from launcher.errors import DeadlineError, Interrupted, UnavailableError
from launcher.link import Link
from launcher.loop import Loop
from launcher.run_dir import RunDir
from tests.test_link import Wire, hello

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop(Console("none"), None) as made:
        yield made


@pytest.fixture
def pair(loop: Loop, tmp_path: Path) -> tuple[Agents, Wire, Wire]:
    """Two hosts whose agents have said hello."""
    run_dir = RunDir.named(tmp_path, "t", pytest.fail)
    run_dir.make()
    wires = Wire(), Wire()
    agents = Agents({host: Link(host, each) for host, each in zip("ab", wires, strict=True)}, loop, run_dir)
    for each in wires:
        each.says(hello(5.0))
    assert agents.meet().keys() == {"a", "b"}
    return agents, *wires


def lose(loop: Loop, agent: Wire) -> None:
    os.close(agent.words_end)
    while not any(isinstance(event, events.AgentLost) for event in loop.wait()):
        pass


class TestRevive:
    def test_nobody_is_lost(self, pair: tuple[Agents, Wire, Wire]) -> None:
        assert pair[0].revive(dict[str, Wire]().__getitem__) == {}

    def test_it_comes_back(self, loop: Loop, pair: tuple[Agents, Wire, Wire]) -> None:
        agents, _, b = pair
        lose(loop, b)
        fresh = Wire()
        fresh.says(hello(6.0))
        assert agents.revive({"b": fresh}.__getitem__) == {}
        assert agents.meet()["b"]["clock"] == 6.0

    def test_it_cannot_be_started(self, loop: Loop, pair: tuple[Agents, Wire, Wire]) -> None:
        agents, _, b = pair

        def refuse(host: str) -> Wire:
            raise UnavailableError(f"{host}: no route to host", "see to it")

        lose(loop, b)
        assert agents.revive(refuse) == {"b": "no route to host"}
        assert agents.meet().keys() == {"a"}

    def test_it_says_nothing(
        self, loop: Loop, pair: tuple[Agents, Wire, Wire], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agents, _, b = pair
        monkeypatch.setattr(agents_module, "_HELLO", 0.01)
        lose(loop, b)
        silent = Wire()
        assert agents.revive({"b": silent}.__getitem__) == {"b": "no word from its agent within 0.01 s"}
        assert silent.deeds == ["kill", "wait", "close"]
        back = Wire()
        back.says(hello(7.0))
        assert agents.revive({"b": back}.__getitem__) == {}

    def test_it_ends_before_it_says_anything(self, loop: Loop, pair: tuple[Agents, Wire, Wire]) -> None:
        agents, _, b = pair
        lose(loop, b)
        short = Wire()
        os.close(short.words_end)
        assert agents.revive({"b": short}.__getitem__) == {"b": "it ended with status 3"}


class TestLease:
    def test_what_a_host_needs_more_is_leased_and_what_it_needs_less_is_kept(
        self, pair: tuple[Agents, Wire, Wire]
    ) -> None:
        agents, a, b = pair
        a.tells("leased", ports=[10, 11])
        b.tells("leased", ports=[20])
        assert agents.lease({"a": [0, 1], "b": [2]}, None) == {0: 10, 1: 11, 2: 20}
        b.tells("leased", ports=[21])
        assert agents.lease({"a": [1], "b": [0, 2]}, None) == {1: 10, 0: 20, 2: 21}
        assert b.heard().count(wire.control({"do": "lease", "count": 1, "ports": None})) == 2


class TestRest:
    def test_a_lost_agent_does_not_end_it(self, pair: tuple[Agents, Wire, Wire]) -> None:
        agents, _, b = pair
        os.close(b.words_end)
        agents.rest(0.05)

    def test_what_ends_it(self, loop: Loop, pair: tuple[Agents, Wire, Wire]) -> None:
        agents, _, b = pair
        loop.post(events.Signalled(signal.SIGINT))
        with pytest.raises(Interrupted, match="interrupted by SIGINT"):
            agents.rest(60)
        b.tells("terminated")
        with pytest.raises(Interrupted, match="b was told to end"):
            agents.rest(60)
        loop.set_timer("run", 0)
        with pytest.raises(DeadlineError):
            agents.rest(60)
