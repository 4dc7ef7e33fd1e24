from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from launcher.agent import strays
from launcher.agent.process import Process, start
from launcher.agent.spawn import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed"),
]

# How a worker's descendant may try to get away; each tells its own id and stays. What is left to know it by:
ORDINARY = "sleep 600 & echo $!;"
BY_PIPE = "setsid env -i sh -c 'echo $$; kill -STOP $$' &"
BY_ENVIRONMENT = "setsid sh -c 'exec 4>&1 >/dev/null 2>&1; echo $$ >&4; kill -STOP $$' &"
NOTHING = "setsid env -i sh -c 'exec 4>&1 >/dev/null 2>&1; echo $$ >&4; kill -STOP $$' &"


class Family:
    """A worker whose main process has started one descendant, and the descendant's id."""

    def __init__(self, script: str, *, alive: bool = False) -> None:
        argv = ["sh", "-c", f"{script} wait" if alive else script]
        self.process = Process(0, Command(argv, None, dict(os.environ), ()), start)
        self.stray = int(self._first_line())
        if not alive:
            self.bury()

    def bury(self) -> None:
        if self.process.ended is None:
            _, status, usage = os.wait4(self.process.pid, 0)
            self.process.has_ended(status, usage.ru_maxrss)

    def _first_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            select.select([self.process.output], [], [])
            line += os.read(self.process.output, 1)
        return line


@pytest.fixture
def family() -> Iterator[Callable[..., Family]]:
    families: list[Family] = []

    def found(script: str, *, alive: bool = False) -> Family:
        families.append(Family(script, alive=alive))
        return families[-1]

    yield found
    for one in families:
        if one.process.ended is None:
            one.process.kill()
        one.bury()
        _kill(one.stray)
        for descriptor in one.process.open:
            os.close(descriptor)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class TestChildren:
    def test_every_child_zombies_too_and_nobody_else(self) -> None:
        before = strays.children()
        with subprocess.Popen(["sleep", "600"]) as running, subprocess.Popen(["true"]) as ended:
            os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
            assert strays.children() - before == {running.pid, ended.pid}
            assert os.getpid() not in strays.children()
            running.kill()

    def test_a_kernel_without_the_list_is_asked_for_everyones_parent(self) -> None:
        with subprocess.Popen(["sleep", "600"]) as running:
            assert strays._children_by_parent(os.getpid()) == strays.children()
            assert running.pid in strays._children_by_parent(os.getpid())
            running.kill()


class TestEnd:
    def test_it_kills(self) -> None:
        with subprocess.Popen(["sleep", "600"]) as running:
            strays.end(running.pid)
            assert running.wait() == -signal.SIGKILL

    def test_who_is_gone_is_no_error(self) -> None:
        with subprocess.Popen(["true"]) as ended:
            ended.wait()
        strays.end(ended.pid)

    def test_all_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with subprocess.Popen(["sleep", "600"]) as one, subprocess.Popen(["sleep", "600"]) as other:
            monkeypatch.setattr(strays, "children", lambda: {one.pid, other.pid})
            assert strays.end_all()
            assert one.wait() == other.wait() == -signal.SIGKILL
        monkeypatch.setattr(strays, "children", set)
        assert not strays.end_all()


def end_strays_of(*processes: Process) -> None:
    living = {process.pid for process in processes if process.ended is None}
    strays.end_strays(living, (process for process in processes if process.ended is not None), set())


class TestEndStrays:
    """Which of the descendants that an agent has adopted it ends, told by their ids."""

    @pytest.fixture
    def end_strays(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[int]]:
        def ended(*families: Family) -> set[int]:
            found: set[int] = set()
            adopted = {one.stray for one in families} | {one.process.pid for one in families}
            monkeypatch.setattr(strays, "children", lambda: adopted)
            monkeypatch.setattr(strays, "end", found.add)
            end_strays_of(*(one.process for one in families))
            return found & {one.stray for one in families}

        return ended

    @pytest.mark.parametrize("script", [ORDINARY, BY_ENVIRONMENT, BY_PIPE])
    def test_those_of_a_worker_that_is_gone(
        self, family: Callable[..., Family], end_strays: Callable[..., set[int]], script: str
    ) -> None:
        gone, other = family(script), family(ORDINARY, alive=True)
        assert end_strays(gone, other) == {gone.stray}

    @pytest.mark.parametrize("script", [ORDINARY, BY_ENVIRONMENT, BY_PIPE, NOTHING])
    def test_those_of_a_live_worker_are_left_alone(
        self, family: Callable[..., Family], end_strays: Callable[..., set[int]], script: str
    ) -> None:
        alive, gone = family(script, alive=True), family(ORDINARY)
        assert end_strays(alive, gone) == {gone.stray}

    def test_one_that_cannot_be_told_is_left_alone_as_long_as_it_may_be_a_live_workers(
        self, family: Callable[..., Family], end_strays: Callable[..., set[int]]
    ) -> None:
        gone, alive = family(NOTHING), family(ORDINARY, alive=True)
        assert end_strays(gone, alive) == set()
        alive.process.kill()
        alive.bury()
        assert end_strays(gone, alive) == {gone.stray, alive.stray}

    def test_a_live_worker_itself_is_never_touched(
        self, family: Callable[..., Family], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alive, gone = family(ORDINARY, alive=True), family(ORDINARY)
        found: set[int] = set()
        monkeypatch.setattr(strays, "children", lambda: {alive.process.pid, gone.stray})
        monkeypatch.setattr(strays, "end", found.add)
        end_strays_of(alive.process, gone.process)
        assert found == {gone.stray}


@pytest.fixture
def marked() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Processes that look like those of a run, or what ``before`` makes of them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: str, agent: int, *before: str) -> subprocess.Popen[bytes]:
        mark = [f"TFLAUNCH_PROCESS={agent}.0.1", f"TFLAUNCH_RUN={run}"]
        argv = [*before, "env", *mark, "sh", "-c", "echo up; exec sleep 600"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class TestRuns:
    NOBODY = 2**22 + 1  # beyond pid_max

    def test_who_has_lost_its_agent_and_who_has_one(self, marked: Callable[..., subprocess.Popen[bytes]]) -> None:
        lost, other, alive = marked("a", self.NOBODY), marked("b", self.NOBODY), marked("a", os.getpid())
        found = strays.runs()
        assert (found[0]["a"], found[0]["b"], found[1]["a"]) == ({lost.pid}, {other.pid}, {alive.pid})

    def test_one_run_is_swept_and_no_other(self, marked: Callable[..., subprocess.Popen[bytes]]) -> None:
        lost, other, alive = marked("a", self.NOBODY), marked("b", self.NOBODY), marked("a", os.getpid())
        assert strays.sweep("a") == [lost.pid]
        assert lost.wait() == -signal.SIGKILL
        assert (other.poll(), alive.poll()) == (None, None)

    @pytest.mark.skipif(os.geteuid() != 0, reason="a process space of its own takes root")
    def test_in_a_container_ids_are_others(self, marked: Callable[..., subprocess.Popen[bytes]]) -> None:
        marked("contained", self.NOBODY, "unshare", "--pid", "--fork", "--kill-child")
        assert not any("contained" in several for several in strays.runs())
