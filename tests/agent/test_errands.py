"""Questions to a real agent."""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.agent.test_agent import Agent, shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "log")
    yield made
    made.dismiss()


def ask(agent: Agent, about: str, **question: Any) -> Any:
    agent.order({"do": "ask", "about": about, "question": question})
    answer = agent.next("answer")
    assert answer["about"] == about
    return answer["said"]


def silent(**more: Any) -> dict[str, Any]:
    """A question that takes as long as the pipe that stands for the interpreter's file."""
    return {"python": "", "modules": [], "folder": "", "script": "", "program": "", "env": {}, **more}


def test_ports_listen_for_as_long_as_they_are_told_to(agent: Agent) -> None:
    ports = []
    for count in (2, 0):
        agent.order({"do": "lease", "count": count, "ports": None, "listen": True})
        ports += agent.next("leased")["ports"]
    places = [("127.0.0.1", port) for port in ports]
    assert [one["state"] for one in ask(agent, "dial", places=places, seconds=20)] == ["ok", "ok"]
    assert ask(agent, "deafen") is None
    for place in places:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place)


def test_what_fails_is_no_answer_and_no_end(agent: Agent) -> None:
    assert ask(agent, "dial") is None
    assert "KeyError" in agent._log.read_text()
    assert ask(agent, "premises", **silent())["lacks"] == {}


def test_what_takes_its_time_keeps_nobody(agent: Agent, tmp_path: Path) -> None:
    hangs = tmp_path / "python"
    hangs.write_text(f"#!/bin/sh\nread line <{tmp_path}/door\n")
    hangs.chmod(0o755)
    os.mkfifo(tmp_path / "door")
    agent.order({"do": "ask", "about": "premises", "question": silent(python=str(hangs))})
    assert ask(agent, "deafen") is None
    # A worker that ends takes nobody along whom it did not start.
    agent.order(shell("true"))
    agent.next("exited")
    with (tmp_path / "door").open("w"):
        pass
    answer = agent.next("answer")
    assert answer["about"] == "premises"
    assert answer["said"]["python"] == {"error": "status 1"}


def test_an_agent_that_leaves_takes_its_errands_along(agent: Agent, tmp_path: Path) -> None:
    hangs = tmp_path / "python"
    hangs.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nread line <{tmp_path}/door\n")
    hangs.chmod(0o755)
    for name in ("pid", "door"):
        os.mkfifo(tmp_path / name)
    agent.order({"do": "ask", "about": "premises", "question": silent(python=str(hangs))})
    pid = int((tmp_path / "pid").read_text())
    watched = os.pidfd_open(pid)
    agent.order({"do": "bye"})
    assert agent.left() == "it ended with status 0"
    assert select.select([watched], [], [], 10)[0]
    os.close(watched)


def test_sigterm_to_an_errand_is_none_to_the_agent(agent: Agent, tmp_path: Path) -> None:
    hangs = tmp_path / "python"
    hangs.write_text(f"#!/bin/sh\necho $PPID >{tmp_path}/pid\nread line <{tmp_path}/door\n")
    hangs.chmod(0o755)
    for name in ("pid", "door"):
        os.mkfifo(tmp_path / name)
    agent.order({"do": "ask", "about": "premises", "question": silent(python=str(hangs))})
    errand = psutil.Process(int((tmp_path / "pid").read_text()))
    errand.send_signal(signal.SIGTERM)
    assert agent.next("answer", "terminated")["said"] is None
