"""What a run asks its hosts before it starts workers; tests/hosts/test_check.py asks real ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from launcher import inspection, placement
from launcher.config import Command, Module, Program, Script, Trainer
from launcher.errors import UnavailableError
from launcher.events import HostAnswered
from launcher.layers import Layer, build

if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.agents import Agents
    from launcher.config import ClusterConfig

TRUE = Program(("true",))
PLACES = [("a", 10), ("b", 20)]
FINE: dict[str, Any] = {"python": None, "lacks": {}, "disks": [], "memory": None, "driver": ""}
REACHED = [{"state": "ok"}, {"state": "ok"}]
OTHERS = REACHED[:1]


class Answering:
    """The agents of hosts a and b, as far as an inspection knows them, and what they will say."""

    def __init__(self) -> None:
        self.says: dict[str, dict[str, Any]] = {
            "deafen": {"a": None, "b": None},
            "dial": {"a": REACHED, "b": OTHERS},
            "premises": {"a": FINE, "b": FINE},
        }
        self.asked: dict[str, Any] = {}
        self.gone: list[str] = []
        self.silent: list[tuple[str, str]] = []

    def ask(self, about: str, questions: dict[str, Any], seconds: float) -> dict[str, HostAnswered]:
        return self.ask_all({about: questions}, seconds)[about]

    def ask_all(self, questions: dict[str, Any], _seconds: float) -> dict[str, dict[str, HostAnswered]]:
        self.asked |= questions
        return {
            about: {
                host: HostAnswered(host, about, self.says[about][host], 0.0)
                for host in hosts
                if host not in self.gone and (about, host) not in self.silent
            }
            for about, hosts in questions.items()
        }

    def lost(self, hosts: Iterable[str]) -> list[str]:
        return [host for host in hosts if host in self.gone]


@pytest.fixture
def agents() -> Answering:
    return Answering()


def config(**settings: Any) -> ClusterConfig:
    values = {"hosts": [{"address": "a"}, {"address": "b"}], "engine": "ssh", "command": ["true"], **settings}
    return build(Layer("t", values))


def require(agents: Answering, command: Command = TRUE, **settings: Any) -> list[str]:
    chosen = replace(config(**settings), command=command)
    hosts = [placement.Host(name, python="/opt/python", code="/agent", folder="/data") for name in ("a", "b")]
    return inspection.require(chosen, hosts, {"FORWARDED": "1"}, PLACES, cast("Agents", agents))


def test_all_is_well(agents: Answering) -> None:
    assert require(agents) == []
    assert agents.asked["dial"]["a"]["places"] == PLACES
    # TensorFlow has the first task alone dial itself.
    assert agents.asked["dial"]["b"]["places"] == PLACES[:1]
    # In the end.
    assert list(agents.asked)[-1] == "deafen"
    assert agents.asked["deafen"] == {"a": {}, "b": {}}


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (TRUE, {"python": "", "program": "true"}),
        (Script("x.py"), {"python": "/opt/python", "script": "x.py", "modules": ["tensorflow", "keras"]}),
        (Module("x"), {"python": "/opt/python", "modules": ["tensorflow", "keras", "x"]}),
        (Module("worker"), {"python": "/opt/python", "modules": ["tensorflow", "keras"]}),
        (Trainer("mine.py:task"), {"python": "/opt/python", "script": "mine.py"}),
    ],
)
def test_hosts_are_asked_for_what_is_to_run(agents: Answering, command: Command, asked: dict[str, Any]) -> None:
    require(agents, command, env={"OWN": "2"})
    question = agents.asked["premises"]["b"]
    assert {**question, **asked} == question
    assert (question["folder"], question["env"]) == ("/data", {"FORWARDED": "1", "OWN": "2"})


def test_a_line_that_is_cut(agents: Answering) -> None:
    agents.says["dial"]["a"] = [{"state": "ok"}, {"state": "dropped"}]
    with pytest.raises(UnavailableError, match="a cannot reach b: silently dropped, as a firewall does") as caught:
        require(agents, ports="100-200")
    assert caught.value.hint == "let TCP through between them, on ports 100-200"


def test_what_both_lack_is_told_once(agents: Answering) -> None:
    for host in "ab":
        agents.says["premises"][host] = {**FINE, "lacks": {"script": "x.py"}}
    with pytest.raises(UnavailableError, match=r"^a, b: no such script: x\.py"):
        require(agents, Script("x.py"))


def test_one_that_is_lost_meanwhile(agents: Answering) -> None:
    agents.gone = ["b"]
    with pytest.raises(UnavailableError, match="the agent on b was lost before the workers were started"):
        require(agents)


@pytest.mark.parametrize("silent", ["dial", "premises"])
def test_what_a_host_cannot_find_out_is_left_to_the_workers(agents: Answering, silent: str) -> None:
    agents.says[silent]["a"] = None
    assert require(agents) == []


def test_one_that_does_not_answer_is_told_of_and_left_to_its_workers(agents: Answering) -> None:
    agents.silent = [("premises", "b")]
    assert require(agents, Script("x.py")) == ["b: no word within 10 s of what is there for the workers"]
