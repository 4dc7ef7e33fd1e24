"""Agents that stay: real ones, used by one run after another."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from launcher.testing import Clusters

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


def agents() -> set[int]:
    """The loops of the agents of this process."""
    guards = [one for one in psutil.Process().children() if "launcher.agent" in " ".join(one.cmdline())]
    return {loop.pid for guard in guards for loop in guard.children()}


def dialled() -> str:
    import json

    return str(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][0])


def test_ports_are_free_after_each_run(clusters: Clusters) -> None:
    port = int(clusters(1).run(dialled)[0].rpartition(":")[2])
    with socket.socket() as heir:
        heir.bind(("127.0.0.1", port))
    assert agents()


def test_a_range_of_ports_lasts_for_any_number_of_runs(clusters: Clusters) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = clusters(1, ports=f"{port}-{port}")
    assert [cluster.run(dialled) for _ in range(3)] == [[f"127.0.0.1:{port}"]] * 3


def test_none_is_left(tmp_path: Path) -> None:
    with Clusters(tmp_path) as clusters:
        clusters(1).run(os.getpid)
        assert len(agents()) == 1
    assert agents() == set()


def test_one_that_was_killed_is_replaced(clusters: Clusters) -> None:
    (first,) = clusters(1).run(os.getppid)
    os.kill(first, signal.SIGKILL)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(first).wait()
    (second,) = clusters(1).run(os.getppid)
    assert second != first
    assert agents() == {second}


def test_one_that_knows_a_variable_that_is_gone_is_replaced(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("A_SETTING", "1")
        assert clusters(1).run(lambda: os.environ.get("A_SETTING")) == ["1"]
        patch.setenv("A_SETTING", "2")
        assert clusters(1).run(lambda: os.environ.get("A_SETTING")) == ["2"]
        first = agents()
    assert clusters(1).run(lambda: os.environ.get("A_SETTING")) == [None]
    assert agents().isdisjoint(first)


def test_a_tasks_place_is_its_own(clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters(1).run(os.getpid)
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert clusters(1).run(dialled)[0].startswith("127.0.0.1:")
