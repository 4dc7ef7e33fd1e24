"""Which fork servers there are; what they do is in tests/worker/test_worker_warm.py."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from launcher.agent import kernel, warm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not kernel.LINUX, reason="warm start is for Linux")


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[warm.ForkServers]:
    """Of processes that do not import anything."""
    started: list[subprocess.Popen[bytes]] = []

    def spawn(_command: object, _descriptors: object) -> int:
        started.append(subprocess.Popen(["sleep", "1000"]))
        return started[-1].pid

    monkeypatch.setattr(warm, "spawn", spawn)
    yield warm.ForkServers()
    for process in started:
        process.kill()
        process.wait()


def make_ready(server: warm.ForkServer, *read: str) -> None:
    """Have it say that it has imported, and looked at these variables."""
    server._words = json.dumps({"ready": True, "read": read}).encode() + b"\n"
    server._understand()


def order(task: int = 0, cwd: str = "/", **env: str) -> dict[str, Any]:
    return {
        "task": task,
        "argv": ["python", "start.py", "train.py"],
        "cwd": cwd,
        "env": env,
        "warm": {"module": "tensorflow", "env": {}},
    }


def test_tasks_share_one_whatever_their_own_variables_are(servers: warm.ForkServers) -> None:
    first, is_new = servers.get(order(TF_CONFIG="a", TFLAUNCH_TASK="worker:0", PYTEST_CURRENT_TEST="one"))
    assert is_new
    assert servers.get(order(TF_CONFIG="b", TFLAUNCH_TASK="worker:1", PYTEST_CURRENT_TEST="two")) == (first, False)


def test_another_environment_needs_another(servers: warm.ForkServers) -> None:
    found = [servers.get(one)[0] for one in (order(), order(MINE="1"), order(KERAS_BACKEND="tensorflow"))]
    assert len(set(found)) == 3


def test_once_it_is_known_what_the_import_read_nothing_else_matters(servers: warm.ForkServers) -> None:
    first, _ = servers.get(order(HOME="/h", MINE="1", TF_FLAG="x"))
    assert servers.get(order(HOME="/h", MINE="2", TF_FLAG="x"))[1]
    make_ready(first, "HOME", "UNSET")
    for same in (order(HOME="/h", MINE="3", TF_FLAG="x"), order(HOME="/h", TF_FLAG="x", cwd="/tmp")):
        assert servers.get(same) == (first, False)
    for other in (
        order(HOME="/i", TF_FLAG="x"),
        order(HOME="/h", TF_FLAG="y"),
        order(HOME="/h", TF_FLAG="x", UNSET=""),
    ):
        assert servers.get(other)[0] != first


@pytest.mark.parametrize(("path", "alike"), [("/a:/b", True), ("/a:b", False), (":/a", False)])
def test_a_path_that_starts_where_the_process_does(servers: warm.ForkServers, path: str, alike: bool) -> None:
    first, _ = servers.get(order(PYTHONPATH=path))
    make_ready(first)
    assert (servers.get(order(PYTHONPATH=path, cwd="/tmp"))[0] == first) == alike


def test_the_oldest_makes_room(servers: warm.ForkServers) -> None:
    found = [servers.get(order(MINE=str(number)))[0] for number in range(4)]
    assert [bool(server.why) for server in found] == [True, True, False, False]
    # Until they are reaped, they are not to be taken for what a task has left behind.
    assert servers.pids == {server.pid for server in found}
    servers.reaped(found[0].pid)
    assert servers.pids == {server.pid for server in found[1:]}
    assert servers.get(order(MINE="0"))[1]


def test_one_that_is_waited_for_does_not(servers: warm.ForkServers) -> None:
    first, _ = servers.get(order(MINE="0"))
    first.waiting.append(order(task=7))
    for number in range(1, 4):
        servers.get(order(MINE=str(number)))
    assert first.why == ""
    assert servers.withdraw(7)
