"""Many agents at once: those that come, those that do not, and what ends the waiting for them."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from launcher import events, gathering
from launcher.agent import wire
from launcher.agents import Agents
from launcher.config import ClusterConfig, HostSpec, Program
from launcher.console import Console
from launcher.engines import Docks
from launcher.errors import DeadlineError, Interrupted, UnavailableError
from launcher.loop import Loop
from launcher.run_dir import RunDir
from tests.test_link import Wire, hello

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from launcher.engines import Berth

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Console("none", stdout=-1, stderr=-1) as console, Loop(console, None) as made:
        yield made


class Pair:
    """Two hosts whose agents have said hello; ``doors`` gives what comes when one is started again."""

    silence: float | None = None
    at_once = 1

    def __init__(self, loop: Loop, run_dir: RunDir) -> None:
        hosts = tuple(HostSpec(name) for name in ("a", "b", "c", *(f"h{number}" for number in range(5))))
        config = ClusterConfig(command=Program(("true",)), name="t", engine="x", hosts=hosts, workers=8)
        self.docks = Docks(self, config, run_dir)
        self.loop = loop
        self.a, self.b = Wire(), Wire()
        self.doors: dict[str, list[Wire]] = {"a": [self.a], "b": [self.b]}
        self.agents = Agents(self.docks, {}, loop, run_dir)
        for each in (self.a, self.b):
            each.says(hello(5.0))
        assert self.agents.meet(["a", "b"]).keys() == {"a", "b"}

    def open(self, berths: Sequence[Berth], **_: Any) -> list[Wire]:
        return [self.start(berth.host.address) for berth in berths]

    def start(self, address: str) -> Wire:
        if not self.doors[address]:
            raise UnavailableError(f"{address}: no route to host", "see to it")
        return self.doors[address].pop(0)

    def meet_again(self, berth: Berth, **_: Any) -> Wire | None:
        raise AssertionError(berth)

    def peek(self, host: HostSpec) -> Mapping[str, Any] | None:
        raise AssertionError(host)

    def lose_b(self) -> None:
        self.b.hang_up()
        while not any(isinstance(event, events.AgentLost) for event in self.loop.wait()):
            pass

    def revive(self, *comes: Wire) -> dict[str, str]:
        self.doors["b"] = list(comes)
        return self.agents.revive()


@pytest.fixture
def pair(loop: Loop, tmp_path: Path) -> Iterator[Pair]:
    run_dir = RunDir.named(tmp_path, "t", pytest.fail)
    run_dir.make()
    with closing(run_dir):
        yield Pair(loop, run_dir)


def greeting(clock: float = 6.0) -> Wire:
    made = Wire()
    made.says(hello(clock))
    return made


def mute() -> Wire:
    made = Wire()
    made.hang_up()
    return made


class TestMeet:
    def test_all_that_are_missing_are_told(self, pair: Pair) -> None:
        pair.lose_b()
        pair.agents = Agents(pair.docks, {}, pair.loop, pair.agents._run_dir)
        pair.doors = {"a": [mute()], "b": [], "c": [greeting()]}
        with pytest.raises(UnavailableError) as caught:
            pair.agents.meet(["a", "b", "c"])
        assert caught.value.args[0].splitlines() == [
            "2 of 3 hosts are not to be had",
            "  a: its agent did not start: it ended with status 3",
            "  b: no route to host (see to it)",
        ]

    def test_no_more_than_so_many_are_on_their_way_at_once(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        pair.at_once = 2
        names = [f"h{number}" for number in range(5)]
        opened: list[Wire] = []

        def start(_: str) -> Wire:
            # Each speaks when the next has been started.
            opened.append(Wire())
            if len(opened) > 1:
                opened[-2].says(hello(5.0))
            if len(opened) == 5:
                opened[-1].says(hello(5.0))
            return opened[-1]

        monkeypatch.setattr(pair, "start", start)
        assert Agents(pair.docks, {}, pair.loop, pair.agents._run_dir).meet(names).keys() == set(names)

    def test_one_that_was_turned_away_knocks_again(self, pair: Pair) -> None:
        away = mute()
        away.turned_away = True
        pair.doors["c"] = [away, greeting(9.0)]
        assert pair.agents.meet(["a", "b", "c"])["c"]["clock"] == 9.0

    def test_but_not_for_ever(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gathering, "_KNOCKS", 2)
        pair.doors["c"] = [mute(), mute()]
        for away in pair.doors["c"]:
            away.turned_away = True
        with pytest.raises(UnavailableError, match="c: its agent did not start"):
            pair.agents.meet(["a", "b", "c"])

    def test_who_is_missing_keeps_nobody_else(self, pair: Pair) -> None:
        pair.doors["c"] = [mute()]
        gone = pair.agents.seek(["a", "b", "c"])
        assert {host: str(error) for host, error in gone.items()} == {
            "c": "c: its agent did not start: it ended with status 3"
        }
        assert pair.agents.facts("a")["clock"] == 5.0
        assert pair.agents.took("a") >= 0


class TestAsk:
    def answers(self, agent: Wire, about: str, said: object) -> None:
        agent.tells("answer", about=about, said=said, clock=0.0)

    def test_each_gets_its_question_and_gives_its_answers(self, pair: Pair) -> None:
        self.answers(pair.a, "dial", ["ok"])
        self.answers(pair.a, "premises", {"lacks": {}})
        self.answers(pair.b, "dial", None)
        asked: dict[str, dict[str, dict[str, object]]] = {
            "dial": {"a": {"places": [1]}, "b": {"places": [2]}},
            "premises": {"a": {}},
        }
        found = pair.agents.ask_all(asked, 60)
        assert {about: {host: each.said for host, each in several.items()} for about, several in found.items()} == {
            "dial": {"a": ["ok"], "b": None},
            "premises": {"a": {"lacks": {}}},
        }
        question = {"do": "ask", "about": "dial", "question": {"places": [2]}}
        assert wire.control(question) in pair.b.heard()

    def test_who_is_lost_meanwhile_has_none(self, pair: Pair) -> None:
        self.answers(pair.a, "dial", [])
        pair.b.hang_up()
        assert pair.agents.ask("dial", {"a": {}, "b": {}}, 60).keys() == {"a"}

    def test_nobody_is_waited_for_for_ever(self, pair: Pair) -> None:
        self.answers(pair.a, "dial", [])
        assert pair.agents.ask("dial", {"a": {}, "b": {}}, 0.05).keys() == {"a"}

    def test_an_interruption(self, loop: Loop, pair: Pair) -> None:
        loop.post(events.Signalled(signal.SIGINT))
        with pytest.raises(Interrupted):
            pair.agents.ask("dial", {"a": {}}, 60)


class TestRevive:
    def test_nobody_is_lost(self, pair: Pair) -> None:
        assert pair.agents.revive() == {}

    def test_it_comes_back(self, pair: Pair) -> None:
        pair.lose_b()
        assert pair.revive(greeting(6.0)) == {}
        assert pair.agents.meet(["a", "b"])["b"]["clock"] == 6.0

    def test_it_cannot_be_started(self, pair: Pair) -> None:
        pair.lose_b()
        assert pair.revive() == {"b": "no route to host"}
        assert pair.agents.meet(["a"]).keys() == {"a"}

    def test_it_is_asked_again_each_time(self, pair: Pair) -> None:
        pair.lose_b()
        assert pair.revive() == pair.revive() == {"b": "no route to host"}
        assert pair.revive(greeting()) == {}

    def test_it_says_nothing(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gathering, "_HELLO", 0.01)
        pair.lose_b()
        silent = Wire()
        assert pair.revive(silent) == {"b": "no word from its agent within 0.01 s"}
        assert silent.deeds == ["kill", "wait", "close", "abandon"]
        assert pair.revive(greeting()) == {}

    def test_it_ends_before_it_says_anything(self, pair: Pair) -> None:
        pair.lose_b()
        assert pair.revive(mute()) == {"b": "its agent did not start: it ended with status 3"}


class TestLease:
    def test_what_a_host_needs_more_is_leased_and_what_it_needs_less_is_kept(self, pair: Pair) -> None:
        agents, a, b = pair.agents, pair.a, pair.b
        a.tells("leased", ports=[10, 11])
        b.tells("leased", ports=[20])
        assert agents.lease({"a": [0, 1], "b": [2]}, None) == {0: 10, 1: 11, 2: 20}
        b.tells("leased", ports=[21])
        assert agents.lease({"a": [1], "b": [0, 2]}, None) == {1: 10, 0: 20, 2: 21}
        assert b.heard().count(wire.control({"do": "lease", "count": 1, "ports": None, "listen": False})) == 2


class TestRest:
    def test_a_lost_agent_does_not_end_it(self, pair: Pair) -> None:
        pair.b.hang_up()
        pair.agents.rest(0.05)

    def test_what_ends_it(self, loop: Loop, pair: Pair) -> None:
        agents, b = pair.agents, pair.b
        loop.post(events.Signalled(signal.SIGINT))
        with pytest.raises(Interrupted, match="interrupted by SIGINT"):
            agents.rest(60)
        b.tells("terminated")
        with pytest.raises(Interrupted, match="b was told to end"):
            agents.rest(60)
        loop.set_timer("run", 0)
        with pytest.raises(DeadlineError):
            agents.rest(60)
