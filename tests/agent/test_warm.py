"""Which fork servers there are; what they do is in tests/worker/test_worker_warm.py."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.agent import kernel, warm

pytestmark = pytest.mark.skipif(not kernel.LINUX, reason="warm start is for Linux")


class Server:
    """A fork server that is none."""

    started = 0

    def __init__(self, _command: object) -> None:
        Server.started += 1
        self.pid = Server.started
        self.reaped = False
        self.why = ""
        self.waiting: list[dict[str, Any]] = []

    def give_up(self, why: str) -> None:
        self.why = why


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> warm.ForkServers:
    monkeypatch.setattr(warm, "ForkServer", Server)
    return warm.ForkServers()


def order(task: int = 0, cwd: str = "/", **env: str) -> dict[str, Any]:
    return {"task": task, "argv": ["python", "start.py", "train.py"], "cwd": cwd, "env": env, "warm": {}}


def test_tasks_share_one_whatever_their_own_variables_are(servers: warm.ForkServers) -> None:
    first, is_new = servers.get(order(TF_CONFIG="a", TFLAUNCH_TASK="worker:0", PYTEST_CURRENT_TEST="one"))
    assert is_new
    assert servers.get(order(TF_CONFIG="b", TFLAUNCH_TASK="worker:1", PYTEST_CURRENT_TEST="two")) == (first, False)


def test_another_directory_or_environment_needs_another(servers: warm.ForkServers) -> None:
    found = [servers.get(one)[0] for one in (order(), order(cwd="/tmp"), order(KERAS_BACKEND="tensorflow"))]
    assert len(set(found)) == 3


def test_the_oldest_makes_room(servers: warm.ForkServers) -> None:
    found = [servers.get(order(cwd=str(number)))[0] for number in range(4)]
    assert [bool(server.why) for server in found] == [True, True, False, False]
    # Until they are reaped, they are not to be taken for what a task has left behind.
    assert servers.pids == {server.pid for server in found}
    servers.reaped(found[0].pid)
    assert servers.pids == {server.pid for server in found[1:]}
    assert servers.get(order(cwd="0"))[1]


def test_one_that_is_waited_for_does_not(servers: warm.ForkServers) -> None:
    first, _ = servers.get(order(cwd="0"))
    first.waiting.append(order(task=7))
    for number in range(1, 4):
        servers.get(order(cwd=str(number)))
    assert first.why == ""
    assert servers.withdraw(7)
