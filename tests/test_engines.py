from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
from pathlib import Path

import pytest

from launcher import engines
from launcher.agent import facts, wire
from launcher.config import HostSpec
from launcher.engines import Berth
from launcher.engines.child import Child
from launcher.engines.local import LocalEngine
from launcher.errors import UnavailableError

HERE = HostSpec("127.0.0.1")


class TestLoad:
    def test_ours(self) -> None:
        assert isinstance(engines.load("local"), LocalEngine)

    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(UnavailableError, match=r'there is no engine "clowd" here\n  installed: .*local'):
            engines.load("clowd")

    def test_a_third_partys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        point = importlib.metadata.EntryPoint("theirs", "launcher.engines.local:LocalEngine", engines.GROUP)
        monkeypatch.setattr(
            importlib.metadata, "entry_points", lambda *, group: [point] if group == point.group else []
        )
        assert isinstance(engines.load("theirs"), LocalEngine)
        with pytest.raises(UnavailableError, match="installed: local, slurm, ssh, theirs"):
            engines.load("clowd")

    def test_nobody_elses_code_takes_the_place_of_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.metadata, "entry_points", pytest.fail)
        assert isinstance(engines.load("local"), LocalEngine)


class TestLocal:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        return tmp_path / "agent.log"

    def open(self, log: Path) -> Child:
        return LocalEngine().open([Berth(HERE, log, "")], private=False)[0]

    def test_an_agent_says_hello_and_leaves_when_its_wire_ends(self, log: Path) -> None:
        channel = self.open(log)
        assert os.read(channel.stdout, wire.HEADER.size)[0] == wire.CONTROL
        channel.close()
        channel.close()
        assert channel.wait() == "it ended with status 0"
        assert log.read_text() == ""

    def test_it_is_out_of_reach_of_the_terminal(self, log: Path) -> None:
        channel = self.open(log)
        os.read(channel.stdout, 1)
        assert os.getsid(channel.pid) == channel.pid != os.getsid(0)
        channel.close()
        channel.wait()

    def test_it_can_be_killed(self, log: Path) -> None:
        channel = self.open(log)
        os.read(channel.stdout, 1)
        channel.kill()
        assert channel.wait() == "killed by SIGKILL"
        channel.kill()
        channel.close()

    def test_how_it_ended_is_said_in_words(self, log: Path) -> None:
        channel = self.open(log)
        os.read(channel.stdout, 1)
        os.kill(channel.pid, signal.SIGKILL)
        assert channel.wait() == "killed by SIGKILL"
        channel.close()

    def test_an_agent_that_cannot_start_leaves_its_reason_in_the_log(
        self, log: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("launcher.engines.local._PACKAGES", "/nonexistent")
        channel = self.open(log)
        assert os.read(channel.stdout, 1) == b""
        assert channel.wait() == "it ended with status 1"
        channel.close()
        assert "ModuleNotFoundError" in log.read_text()

    def test_an_interpreter_that_is_gone(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are numbers here
        with pytest.raises(UnavailableError, match="cannot start /nonexistent/python: No such file"):
            self.open(log)
        assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names are numbers here

    def test_another_host_is_not_this_machine(self, log: Path) -> None:
        with pytest.raises(UnavailableError, match=r'10\.0\.0\.1: the engine "local" runs on this machine only'):
            LocalEngine().open([Berth(HostSpec("10.0.0.1"), log, "")], private=False)

    def test_this_machine_can_be_looked_at(self) -> None:
        seen = LocalEngine().peek(HERE)
        assert seen is not None
        assert seen["cores"] == facts.cores()

    def test_a_pipe_tells_at_once_so_silence_means_nothing(self) -> None:
        assert LocalEngine.silence is None
