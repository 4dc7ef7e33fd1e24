"""What brings an agent to a node: a step, whose srun is a script here, and the channel at which it is awaited."""

from __future__ import annotations

import os
import re
import select
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.engines import Berth
from launcher.engines.slurm import SlurmChannel, SlurmEngine, command
from launcher.engines.step import Step
from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(60)

TOKEN = b"0123456789abcdef"


class Awaited:
    """Somebody who is told that nobody comes."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def despair(self) -> None:
        self.told.set()


Nodes = dict[str, Awaited]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[str, Nodes], Step]:
    def _begin(script: str, nodes: Nodes) -> Step:
        step = Step(["sh", "-c", script], b"orders\n", tmp_path / "srun.log")
        step.await_(nodes)
        return step

    return _begin


def nodes(*names: str) -> Nodes:
    return {name: Awaited() for name in names}


class TestStep:
    def test_its_srun_is_told_the_orders_and_what_it_says_is_kept(
        self, begin: Callable[[str, Nodes], Step], tmp_path: Path
    ) -> None:
        (tmp_path / "srun.log").write_text("of others\n")
        step = begin("cat; echo bad >&2", {})
        step.wait()
        assert (tmp_path / "srun.log").read_text() == "of others\norders\nbad\n"

    def test_whoever_has_no_agent_any_more_is_told_and_why(self, begin: Callable[[str, Nodes], Step]) -> None:
        """Those of others are awaited on. What a task said comes after the news of its end."""
        three = nodes("n1", "n2", "n10")
        said = "echo 'srun: error: n[2,10]: tasks 1-2: Exited with exit code 2'; echo '1: no such thing'; echo '2: n1 is away'"
        step = begin(f"{said}; exec sleep 600", three)
        assert three["n2"].told.wait(20)
        assert three["n10"].told.wait(20)
        assert (step.said("n2"), step.said("n10")) == ("no such thing", "n1 is away")
        assert not three["n1"].told.is_set()
        for node in three:
            step.leave(node)

    def test_one_to_which_slurm_cannot_launch_is_the_reason_for_what_the_others_suffer(
        self, begin: Callable[[str, Nodes], Step]
    ) -> None:
        two = nodes("n1", "n2")
        lines = (
            "srun: error: Task launch for StepId=7.0 failed on node n2: Communication connection failure",
            "srun: error: Application launch failed: Communication connection failure",
            "0: slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-26T09:56:30 ***",
            "srun: error: n1: task 0: Killed",
        )
        step = begin("".join(f"echo '{line}';" for line in lines) + "exec sleep 600", two)
        assert two["n1"].told.wait(20)
        assert two["n2"].told.wait(20)
        for node in two:
            step.leave(node)
        assert {step.said("n1"), step.said("n2")} == {lines[0].removeprefix("srun: error: ")}

    def test_a_name_is_not_part_of_another(self, begin: Callable[[str, Nodes], Step]) -> None:
        step = begin("echo 'srun: error: Node failure on n10'", nodes("n1", "n10"))
        step.wait()
        assert step.said("n10") == "Node failure on n10"
        assert step.said("n1") == "Node failure on n10"  # for want of something of its own
        step = begin(
            "echo 'srun: error: Node failure on n1'; echo 'srun: error: n10: task 1: Exited with exit code 1'", {}
        )
        step.wait()
        assert step.said("n1") == "Node failure on n1"

    @pytest.mark.parametrize(
        ("line", "late"),
        [
            ("srun: error: Slurm job 3 has expired", True),
            ("srun: error: Unable to confirm allocation for job 3: Invalid job id specified", True),
            ("srun: error: Unable to create step for job 3: Requested nodes are busy", False),
        ],
    )
    def test_it_comes_too_late_in_a_job_that_is_over(
        self, begin: Callable[[str, Nodes], Step], line: str, *, late: bool
    ) -> None:
        step = begin(f"echo '{line}'; exit 1", {})
        step.wait()
        assert step.came_too_late == late

    def test_one_that_is_left_is_ended(
        self, begin: Callable[[str, Nodes], Step], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Not before the last node has left it."""
        monkeypatch.setattr("launcher.engines.step._PATIENCE", 0.01)
        step = begin("trap 'echo interrupted; exit 0' INT; while :; do sleep 0.01; done", nodes("n1", "n2"))
        step.leave("n1")
        assert not step.is_left
        step.leave("n2")
        assert step.is_left
        step.wait()
        assert (tmp_path / "srun.log").read_text() == "interrupted\n"

    def test_one_that_is_deaf_is_killed(
        self, begin: Callable[[str, Nodes], Step], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("_PATIENCE", "_MOMENT"):
            monkeypatch.setattr(f"launcher.engines.step.{name}", 0.01)
        one = nodes("n1")
        step = begin("trap '' INT; while :; do sleep 0.01; done", one)
        step.leave("n1")
        assert one["n1"].told.wait(20)

    def test_there_is_no_srun(self, tmp_path: Path) -> None:
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are numbers here
        with pytest.raises(UnavailableError, match="cannot start /nowhere/srun: No such file"):
            Step(["/nowhere/srun"], b"", tmp_path / "srun.log")
        assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names are numbers here


class TestChannel:
    @pytest.fixture
    def step(self, begin: Callable[[str, Nodes], Step]) -> Step:
        return begin("", {})

    @pytest.fixture
    def channel(self, step: Step) -> SlurmChannel:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        return SlurmChannel("n1", step, listener, TOKEN, lambda: None)

    def dial(self, channel: SlurmChannel, said: bytes) -> socket.socket:
        place = socket.socket(fileno=os.dup(channel.stdout)).getsockname()
        guest = socket.create_connection(place)
        guest.sendall(said)
        return guest

    def look(self, channel: SlurmChannel) -> bytes | None:
        assert select.select([channel.stdout], [], [], 20)[0]
        return channel.read(100)

    @pytest.mark.parametrize("said", [b"", b"0123456789abcdeX", b"GET / HTTP/1.1"], ids=["nothing", "wrong", "other"])
    def test_a_stranger_who_comes_first_is_refused(self, channel: SlurmChannel, said: bytes) -> None:
        with self.dial(channel, said) as stranger, self.dial(channel, TOKEN) as agent:
            assert self.look(channel) is None
            assert not channel.here
            assert stranger.recv(1) == b""
            assert self.look(channel) is None
            assert channel.here
            agent.sendall(b"hello")
            assert self.look(channel) == b"hello"
        assert self.look(channel) == b""
        channel.close()

    def test_a_lost_connection_is_not_hung_up_before_the_agent_is_abandoned(self, channel: SlurmChannel) -> None:
        """The end of its connection is the end of the agent."""
        with self.dial(channel, TOKEN) as agent:
            self.look(channel)
            channel.kill()
            channel.close()
            assert select.select([agent], [], [], 0)[0] == []
            channel.leave()
            assert agent.recv(1) == b""

    def test_nobody_comes(self, channel: SlurmChannel) -> None:
        channel.despair()
        assert self.look(channel) == b""
        channel.close()


class TestCommand:
    def test_its_name_and_its_nodes(self) -> None:
        argv = command(["n1", "n10"], "/opt/python", 0)
        assert {"--nodes=2", "--ntasks=2", "--nodelist=n1,n10", "--overlap", "--no-kill"} <= {*argv}
        assert "/opt/python" in argv
        assert not re.search("gpu", " ".join(argv))

    def test_gpus_are_those_of_each_node(self) -> None:
        assert "--gpus-per-node=2" in command(["n1", "n2"], "python", 2)
        assert "--gpus=2" in command(["n1"], "python", 2)


def test_a_private_network_reaches_no_node(tmp_path: Path) -> None:
    from launcher.config import HostSpec

    with pytest.raises(UnavailableError, match="a private network is for this machine alone"):
        SlurmEngine().open([Berth(HostSpec("n1"), tmp_path / "log", "")], private=True, lease=60)
