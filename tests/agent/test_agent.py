"""The agent as it runs: a real process, spoken to over its real wire."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from launcher.agent import wire
from launcher.agent.__main__ import _ECHO
from launcher.agent.intake import _BREATH
from launcher.config import HostSpec
from launcher.engines import Berth
from launcher.engines.local import LocalEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., "Agent"]

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are watched through pidfds"),
]

# As the engine starts it, with other times: seconds that everybody has, but no test.
IMPATIENT = (
    "import sys; sys.path.append(sys.argv[1]); import launcher.agent.__main__ as agent;"
    "import launcher.agent.departures as departures; departures.DRAIN = agent.HEARTBEAT = 0.05; agent.main(sys.argv[2])"
)
REPOSITORY = Path(__file__).parents[2]
FOREVER = "echo up; sleep 600 & wait"
DEAF = "trap '' TERM; echo up; sleep 600 & wait; sleep 600"


class Agent:
    """A launcher's end of the wire."""

    def __init__(self, log: Path, *, private: bool = False) -> None:
        self._log = log
        self.channel = LocalEngine().open([Berth(HostSpec("127.0.0.1"), log, "")], private=private)[0]
        self._frames = self._read()
        self.output: dict[int, bytes] = {}
        self.frames: Counter[int] = Counter()

    def order(self, *orders: dict[str, Any]) -> None:
        """Send them all at once."""
        frames = b"".join(wire.control(order) for order in orders)
        while frames:
            frames = frames[os.write(self.channel.stdin, frames) :]

    def next(self, *kinds: str) -> dict[str, Any]:
        """The next message of one of these kinds; output on the way is kept."""
        for message in self._frames:
            if message["do"] in kinds:
                return message
        raise AssertionError(f"the agent left: {self._log.read_text()}")

    def printed(self, task: int, text: bytes) -> None:
        """Read until a task has written this."""
        while text not in self.output.get(task, b""):
            next(self._frames)

    def start(self, script: str, task: int = 0, up: bytes = b"up") -> int:
        """Spawn a shell and wait until it says that it is up; returns its process id."""
        self.order(shell(script, task))
        pid: int = self.next("started")["pid"]
        self.printed(task, up)
        return pid

    def left(self) -> str:
        """Read to the end of the wire; returns how the agent ended."""
        for _ in self._frames:
            pass
        return self.channel.wait()

    def dismiss(self) -> None:
        """Leave nothing behind, whatever the test did."""
        self.channel.close()
        if not self.channel._reaped:
            self.channel.wait()

    def _read(self) -> Iterator[dict[str, Any]]:
        import json

        reader = wire.Reader()
        while data := os.read(self.channel.stdout, wire.CHUNK):
            for kind, task, payload in reader.feed(data):
                if kind == wire.CONTROL:
                    yield json.loads(payload)
                else:
                    self.output[task] = self.output.get(task, b"") + payload
                    self.frames[task] += 1
                    yield {"do": "output"}


def spawn(*argv: str, task: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "do": "spawn",
        "task": task,
        "argv": argv,
        "cwd": None,
        "env": {},
        "around": {},
        "cores": [],
        "address": None,
        **more,
    }


def shell(script: str, task: int = 0, **more: Any) -> dict[str, Any]:
    return spawn("sh", "-c", script, task=task, **more)


def stop(task: int = 0, grace: float = 600.0) -> dict[str, Any]:
    return {"do": "stop", "tasks": [task], "grace": grace, "look": True}


def kill(task: int = 0) -> dict[str, Any]:
    return {"do": "kill", "task": task}


@pytest.fixture
def open_agent(tmp_path: Path) -> Iterator[Start]:
    opened: list[Agent] = []

    def start(**more: Any) -> Agent:
        opened.append(Agent(tmp_path / "agent.log", **more))
        return opened[-1]

    yield start
    for one in opened:
        one.dismiss()


@pytest.fixture
def agent(open_agent: Start) -> Agent:
    return open_agent()


@pytest.fixture
def impatient(open_agent: Start, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr("launcher.engines.local._START", IMPATIENT)
    monkeypatch.setattr(LocalEngine, "silence", 60.0)
    return open_agent()


class Watched:
    """A process that is somebody else's child."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def ends(self, within: float = 20.0) -> bool:
        return bool(select.select([self._descriptor], [], [], within)[0])

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def watch() -> Iterator[Callable[[int], Watched]]:
    watched: list[Watched] = []

    def begin(pid: int) -> Watched:
        watched.append(Watched(pid))
        return watched[-1]

    yield begin
    for one in watched:
        one.close()


def _read_by(pid: int) -> int:
    """Bytes that a process has read, by proc(5); what it has spliced is not among them."""
    (line,) = (line for line in Path(f"/proc/{pid}/io").read_text().splitlines() if line.startswith("rchar: "))
    return int(line.split()[1])


class TestHello:
    def test_comes_first_and_tells_the_facts(self, agent: Agent) -> None:
        hello = next(agent._frames)
        assert (hello["do"], hello["protocol"]) == ("hello", wire.PROTOCOL)
        assert hello["facts"]["hostname"] == os.uname().nodename
        assert hello["facts"]["cores"] == sorted(os.sched_getaffinity(0))
        assert hello["facts"]["pid"] != agent.channel.pid

    def test_who_listens_in_a_network_of_its_own_is_found_there(self, open_agent: Start) -> None:
        agent = open_agent(private=True)
        agent.order({"do": "connect", "count": 2})
        answer = agent.next("connected", "fault")
        if answer["do"] == "fault":
            pytest.skip(f"no network between tasks here: {answer['error']}")
        assert answer["addresses"] == ["10.77.0.1", "10.77.0.2"]
        agent.order({"do": "lease", "count": 1, "ports": None, "listen": False})
        (port,) = agent.next("leased")["ports"]
        code = f"import socket, time; kept = socket.create_server(('', {port})); print('up'); time.sleep(600)"
        agent.order({"do": "listening"})
        assert agent.next("listening")["ports"] == []
        agent.order(spawn(sys.executable, "-u", "-c", code, address="10.77.0.2"))
        agent.next("started")
        agent.printed(0, b"up")
        agent.order({"do": "listening"})
        assert agent.next("listening")["ports"] == [port]

    def test_in_a_private_network_nobody_can_reach_it(self, open_agent: Start) -> None:
        agent = open_agent(private=True)
        answer = agent.next("hello", "fault")
        if answer["do"] == "fault":
            pytest.skip(f"no private network here: {answer['error']}")
        assert answer["facts"]["exposed"] == []


class TestLease:
    def test_ports_are_held_until_it_leaves(self, agent: Agent) -> None:
        agent.order({"do": "lease", "count": 2, "ports": None, "listen": False})
        first, second = agent.next("leased")["ports"]
        assert first != second
        with socket.socket() as intruder, pytest.raises(OSError, match="in use"):
            intruder.bind(("127.0.0.1", first))
        agent.order({"do": "bye"})
        agent.left()
        with socket.socket() as heir:
            heir.bind(("127.0.0.1", first))

    def test_a_range_that_is_exhausted(self, agent: Agent) -> None:
        agent.order({"do": "lease", "count": 1, "ports": None, "listen": False})
        (port,) = agent.next("leased")["ports"]
        agent.order({"do": "lease", "count": 1, "ports": [port, port], "listen": False})
        fault = agent.next("fault")
        assert fault["order"] == "lease"
        assert fault["error"] == f"0 of the 1 ports needed are free in {port}-{port}"

    def test_ports_are_given_back_by_one_that_stays(self, agent: Agent) -> None:
        agent.order({"do": "lease", "count": 1, "ports": None, "listen": False})
        (port,) = agent.next("leased")["ports"]
        agent.order({"do": "release"})
        agent.next("released")
        with socket.socket() as heir:
            heir.bind(("127.0.0.1", port))


class TestSignal:
    def test_it_is_none_of_the_agents_own(self, agent: Agent) -> None:
        agent.start(FOREVER)
        agent.order({"do": "signal", "task": 0, "signal": "SIGKILL"})
        assert agent.next("signalled") == {"do": "signalled", "task": 0, "signal": "SIGKILL", "alive": True}
        exited = agent.next("exited")
        assert (exited["signal"], exited["sent"]) == (signal.SIGKILL, [])

    def test_one_that_is_stopped_stands_still_when_that_is_told(self, agent: Agent) -> None:
        pid = agent.start("echo up; while :; do :; done")
        agent.order({"do": "signal", "task": 0, "signal": "SIGSTOP"})
        agent.next("signalled")
        assert psutil.Process(pid).status() == psutil.STATUS_STOPPED

    def test_one_that_is_stopped_already_holds_nobody_up(self, agent: Agent) -> None:
        pid = agent.start(FOREVER)
        agent.order({"do": "signal", "task": 0, "signal": "SIGSTOP"})
        agent.next("stopped")
        agent.order({"do": "signal", "task": 0, "signal": "SIGSTOP"})
        agent.next("signalled")
        assert psutil.Process(pid).status() == psutil.STATUS_STOPPED

    def test_nobody_is_there_to_get_it(self, agent: Agent) -> None:
        agent.order({"do": "signal", "task": 3, "signal": "SIGKILL"})
        assert agent.next("signalled") == {"do": "signalled", "task": 3, "signal": "SIGKILL", "alive": False}


class TestTask:
    def test_its_life(self, agent: Agent) -> None:
        agent.order(
            shell("""echo out; echo err >&2; echo '{"kind": "state", "state": "up"}' >&3; printf last; exit 3""")
        )
        told = [agent.next("started", "report", "exited") for _ in range(3)]
        started, report, exited = told
        assert [message["do"] for message in told] == ["started", "report", "exited"]
        assert {message["task"] for message in told} == {0}
        assert started["pid"] > 0
        assert report["record"] == {"kind": "state", "state": "up"}
        assert (exited["status"], exited["signal"], exited["sent"]) == (3, None, [])
        assert agent.output == {0: b"out\nerr\nlast"}

    def test_of_a_flood_it_takes_many_lines_at_once(self, agent: Agent) -> None:
        begun = time.monotonic()
        agent.order(shell("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i + 1)); done"))
        assert agent.next("exited")["status"] == 0
        seconds = time.monotonic() - begun
        assert agent.output[0].split() == [str(i).encode() for i in range(20_000)]
        # No two within a moment, but for the first two and the last.
        assert agent.frames[0] <= seconds / _BREATH + 3

    def test_a_report_need_not_wait_for_the_end(self, agent: Agent) -> None:
        agent.order(shell("""echo '{"kind": "progress", "step": 1}' >&3; sleep 600"""))
        assert agent.next("report")["record"]["step"] == 1

    def test_environment_directory_and_cores(self, agent: Agent, tmp_path: Path) -> None:
        core = max(os.sched_getaffinity(0))
        code = "import os; print(os.environ['A'], os.getcwd(), os.sched_getaffinity(0))"
        agent.order(spawn(sys.executable, "-c", code, cwd=str(tmp_path), env={"A": "1"}, cores=[core]))
        agent.next("exited")
        assert agent.output[0].decode() == f"1 {tmp_path.resolve()} {{{core}}}\n"

    def test_what_its_variables_share_is_told_once(self, agent: Agent) -> None:
        agent.order({"do": "share", "text": "all"})
        for task in range(2):
            agent.order(shell("echo $A $B", task, around={"A": ["<", f">{task}"]}, env={"B": "own"}))
        for _ in range(2):
            agent.next("exited")
        assert agent.output == {0: b"<all>0 own\n", 1: b"<all>1 own\n"}

    @pytest.mark.parametrize(
        ("argv", "cwd", "step"), [("/absent/program", None, "run /absent/program"), ("true", "/absent", "change to")]
    )
    def test_a_program_that_cannot_be_run(self, agent: Agent, argv: str, cwd: str | None, step: str) -> None:
        agent.order(spawn(argv, cwd=cwd))
        fault = agent.next("fault")
        assert (fault["order"], fault["task"], fault["error"]) == ("spawn", 0, "No such file or directory")
        assert fault["step"].startswith(step)

    def test_it_inherits_nothing_that_the_agent_has_inherited(self, open_agent: Start, tmp_path: Path) -> None:
        (tmp_path / "lock").touch()
        held = os.open(tmp_path / "lock", os.O_RDONLY)
        os.set_inheritable(held, True)
        agent = open_agent()
        os.close(held)
        agent.order(shell("ls -l /proc/self/fd"))
        agent.next("exited")
        assert b"/lock" not in agent.output[0]

    def test_its_most_memory(self, agent: Agent) -> None:
        small, large = (spawn(sys.executable, "-S", "-c", code) for code in ("pass", "b'x' * (64 << 20)"))
        agent.order(small, {**large, "task": 1})
        peaks = {message["task"]: message["peak"] for message in (agent.next("exited") for _ in range(2))}
        assert 64 << 20 < peaks[1] - peaks[0] + (8 << 20) < 128 << 20

    def test_many_at_once(self, agent: Agent) -> None:
        agent.order(*(shell(f"echo {task}; exit {task}", task) for task in range(40)))
        ends = {message["task"]: message["status"] for message in (agent.next("exited") for _ in range(40))}
        assert ends == {task: task for task in range(40)}
        assert agent.output == {task: b"%d\n" % task for task in range(40)}


class TestOutput:
    def test_every_byte_arrives_though_the_launcher_is_slow(self, agent: Agent) -> None:
        size = 20 << 20
        agent.order(spawn(sys.executable, "-S", "-c", f"import os; os.write(1, bytes(range(256)) * {size // 256})"))
        agent.next("exited")
        assert agent.output[0] == bytes(range(256)) * (size // 256)

    def test_large_pieces_pass_the_agent_by(self, agent: Agent, tmp_path: Path) -> None:
        loop = agent.next("hello")["facts"]["pid"]
        gate, written = tmp_path / "gate", tmp_path / "written"
        for fifo in (gate, written):
            os.mkfifo(fifo)
        # As much as the pipe takes: 1 MiB, or less where this user has many.
        write = f"os.set_blocking(1, False); open('{written}', 'w').write(str(os.write(1, b'x' * (1 << 20))))"
        code = f"import os; open('{gate}').read(); {write}"
        agent.order(spawn(sys.executable, "-S", "-c", code))
        agent.next("started")
        os.kill(loop, signal.SIGSTOP)  # so that it finds all of it in the pipe
        gate.write_text("")
        size = int(written.read_text())
        before = _read_by(loop)
        os.kill(loop, signal.SIGCONT)
        agent.next("exited")
        assert agent.output[0] == b"x" * size
        assert _read_by(loop) - before < size // 2

    # Fills every buffer on its way to a launcher that does not read, then says how much that took, and ends.
    FILL = (
        "import os, select, sys\nfd = int(sys.argv[2])\nos.set_blocking(fd, False)\nwritten = 0\n"
        "while select.select([], [fd], [], 0.3)[1]: written += os.write(fd, sys.argv[3].encode())\n"
        "open(sys.argv[1], 'w').write(str(written))"
    )

    def fill(self, agent: Agent, tmp_path: Path, descriptor: int = 1, piece: str = "x" * 4096) -> int:
        """Let task 0 write until it cannot; returns how much it wrote."""
        path = tmp_path / "written"
        os.mkfifo(path)
        agent.order(spawn(sys.executable, "-S", "-c", self.FILL, str(path), str(descriptor), piece))
        return int(path.read_text())

    def test_records_wait_for_a_slow_launcher_as_output_does(self, agent: Agent, tmp_path: Path) -> None:
        agent.next("hello")
        line = '{"kind": "note", "text": "%s"}\n' % ("x" * 4000)
        written = self.fill(agent, tmp_path, 3, line)
        assert written < 32 << 20  # hundreds of megabytes, were the agent to keep whatever comes
        agent.order(shell("echo up", 1))
        came = Counter[str]()
        while came["exited"] < 2:
            came[agent.next("report", "exited")["do"]] += 1
        assert came["report"] == written // len(line)

    def test_a_task_may_start_while_the_others_are_held_back(self, agent: Agent, tmp_path: Path) -> None:
        agent.next("hello")
        written = self.fill(agent, tmp_path)
        agent.order(shell("echo up; sleep 600", 1))
        agent.next("exited")
        agent.printed(1, b"up")
        assert agent.output[0] == b"x" * written

    def test_what_a_dead_task_wrote_waits_for_a_slow_launcher(self, impatient: Agent, tmp_path: Path) -> None:
        impatient.next("hello")
        written = self.fill(impatient, tmp_path)
        # Longer than descendants may hold the pipe: whoever gives up too early has given up by now.
        select.select([], [], [], 0.4)
        impatient.next("exited")
        assert len(impatient.output[0]) == written

    def test_who_holds_the_pipe_for_nobody_does_not_hold_up_the_end(self, impatient: Agent) -> None:
        impatient.start(FOREVER, task=1)
        # Known by nothing: a session of its own, no environment, and the pipe where nobody looks for it.
        impatient.order(shell("setsid env -i sh -c 'exec 5>&1 >/dev/null 2>&1; echo up >&5; exec sleep 600' & sleep 0"))
        assert impatient.next("exited")["task"] == 0


class TestStop:
    def test_a_worker_that_obeys(self, agent: Agent) -> None:
        agent.start("trap 'echo saved; exit 7' TERM; echo up; sleep 600 & wait")
        agent.order(stop())
        exited = agent.next("exited")
        assert (exited["status"], exited["signal"], exited["sent"]) == (7, None, ["SIGTERM", "SIGCONT"])
        assert agent.output[0] == b"up\nsaved\n"

    def test_a_worker_that_does_not(self, agent: Agent) -> None:
        agent.start(DEAF)
        agent.order(stop(grace=0.05))
        exited = agent.next("exited")
        assert (exited["status"], exited["signal"]) == (None, 9)
        assert exited["sent"] == ["SIGTERM", "SIGCONT", "SIGKILL"]
        assert exited["oom"] is False

    def test_each_has_a_grace_of_its_own(self, agent: Agent) -> None:
        agent.start(DEAF, task=0)
        agent.start(DEAF, task=1)
        agent.order(stop(0, grace=600.0), stop(1, grace=0.05))
        assert agent.next("exited")["task"] == 1
        agent.order(kill())
        exited = agent.next("exited")
        assert (exited["task"], exited["sent"]) == (0, ["SIGTERM", "SIGCONT", "SIGKILL"])

    def test_several_at_once(self, agent: Agent) -> None:
        for task in range(3):
            agent.start(FOREVER, task=task)
        agent.order({**stop(), "tasks": [0, 2, 99]})
        assert {agent.next("exited")["task"] for _ in range(2)} == {0, 2}
        agent.order(kill(1))
        assert agent.next("exited")["sent"] == ["SIGKILL"]

    def test_kill(self, agent: Agent) -> None:
        agent.start(FOREVER)
        agent.order(kill())
        exited = agent.next("exited")
        assert (exited["signal"], exited["sent"]) == (9, ["SIGKILL"])

    @pytest.mark.parametrize("last", ["stop", "kill"])
    def test_before_the_worker_has_become_one(self, agent: Agent, last: str) -> None:
        for task in range(30):
            agent.order(spawn("sleep", "600", task=task), stop(task) if last == "stop" else kill(task))
            assert agent.next("exited")["signal"] == (15 if last == "stop" else 9)

    @pytest.mark.parametrize("order", [stop(), kill(), stop(99), kill(99)])
    def test_who_is_gone_or_never_was_is_told_nothing(self, agent: Agent, order: dict[str, Any]) -> None:
        agent.order(shell("exit 3"))
        agent.next("exited")
        agent.order(order)
        agent.start("echo up; exit 4", task=1)
        exited = agent.next("exited")
        assert (exited["task"], exited["status"]) == (1, 4)

    def test_a_worker_that_somebody_else_has_stopped(self, agent: Agent) -> None:
        pid = agent.start(FOREVER)
        os.kill(pid, signal.SIGSTOP)
        agent.order(stop())
        assert agent.next("exited")["signal"] == 15


# A descendant in a session of its own, whose parent is gone: it tells its id, and stays.
ESCAPED = "(setsid {clean} sh -c 'exec {away} echo stray:$$:; kill -STOP $$' &); "


def escaped(*, clean: bool = False, silent: bool = False) -> str:
    away = "4>&1 >/dev/null 2>&1; exec >&4;" if silent else "2>&1;"
    return ESCAPED.format(clean="env -i" if clean else "", away=away)


def stray_of(agent: Agent, task: int = 0) -> int:
    while agent.output.get(task, b"").count(b":") < 2:
        next(agent._frames)
    return int(agent.output[task].split(b":")[1])


class TestStrays:
    @pytest.mark.parametrize("clean", [False, True])
    def test_a_worker_takes_its_descendants_along(
        self, agent: Agent, watch: Callable[[int], Watched], clean: bool
    ) -> None:
        agent.start(FOREVER, task=1)
        agent.order(shell(escaped(clean=clean) + FOREVER))
        stray = watch(stray_of(agent))
        agent.order(stop())
        assert agent.next("exited")["task"] == 0
        assert stray.ends()

    def test_those_of_other_workers_stay(self, agent: Agent, watch: Callable[[int], Watched]) -> None:
        agent.order(shell(escaped() + FOREVER, 1), shell(escaped() + FOREVER, 0))
        mine, theirs = watch(stray_of(agent, 0)), watch(stray_of(agent, 1))
        agent.order(stop(0))
        agent.next("exited")
        assert mine.ends()
        assert not theirs.ends(within=0)

    def test_after_the_last_worker_nobody_is_left(self, agent: Agent, watch: Callable[[int], Watched]) -> None:
        agent.order(shell(escaped(clean=True, silent=True) + FOREVER))
        stray = watch(stray_of(agent))
        agent.order(stop())
        agent.next("exited")
        assert stray.ends()


class TestEnd:
    """Whatever ends the agent, nothing of it is left: no worker, no descendant of one, no port."""

    @pytest.fixture
    def crowd(self, agent: Agent, watch: Callable[[int], Watched]) -> list[Watched]:
        """The agent's two processes, a worker that is deaf to SIGTERM, and one of its descendants that has escaped."""
        loop = agent.next("hello")["facts"]["pid"]
        worker = agent.start(escaped(clean=True, silent=True) + DEAF)
        return [watch(pid) for pid in (agent.channel.pid, loop, worker, stray_of(agent))]

    def test_bye(self, agent: Agent, crowd: list[Watched]) -> None:
        agent.order({"do": "bye"})
        assert agent.left() == "it ended with status 0"
        assert all(one.ends(within=0) for one in crowd)

    def test_the_launcher_is_gone(self, agent: Agent, crowd: list[Watched]) -> None:
        agent.channel.close()
        assert agent.channel.wait() == "it ended with status 0"
        assert all(one.ends(within=0) for one in crowd)

    def test_the_launcher_is_gone_for_the_agents_words(self, agent: Agent, crowd: list[Watched]) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, agent.channel.stdout)
        os.close(null)
        agent.order({"do": "lease", "count": 1, "ports": None, "listen": False})
        assert agent.channel.wait() == "it ended with status 0"
        assert all(one.ends(within=0) for one in crowd)

    def test_the_guard_is_killed(self, agent: Agent, crowd: list[Watched]) -> None:
        os.kill(agent.channel.pid, signal.SIGKILL)
        assert agent.left() == "killed by SIGKILL"
        assert all(one.ends() for one in crowd)

    def test_the_loop_is_killed(self, open_agent: Start, watch: Callable[[int], Watched]) -> None:
        agent = open_agent()
        loop = agent.next("hello")["facts"]["pid"]
        worker = watch(agent.start(escaped(clean=True, silent=True) + DEAF))
        stray = watch(stray_of(agent))
        os.kill(loop, signal.SIGKILL)
        assert agent.left() == "killed by SIGKILL"
        assert worker.ends(within=0)
        assert stray.ends(within=0)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    @pytest.mark.parametrize("who", ["loop", "guard"])
    def test_asked_to_go_it_tells_the_launcher_and_goes_when_it_is_asked_again(
        self, open_agent: Start, watch: Callable[[int], Watched], number: int, who: str
    ) -> None:
        agent = open_agent()
        loop = agent.next("hello")["facts"]["pid"]
        asked = loop if who == "loop" else agent.channel.pid
        worker = watch(agent.start(DEAF))
        os.kill(asked, number)
        assert agent.next("terminated")
        os.kill(loop, number)  # as Slurm does, which tells both
        for _ in range(2):
            agent.order({"do": "stacks"})
            assert agent.next("stacks")["task"] == 0
        time.sleep(_ECHO)
        os.kill(asked, number)
        assert agent.left() == "it ended with status 0"
        assert worker.ends(within=0)

    def test_ctrl_c_is_for_the_launcher_alone(self, agent: Agent) -> None:
        loop = agent.next("hello")["facts"]["pid"]
        for pid in (agent.channel.pid, loop):
            os.kill(pid, signal.SIGINT)
        agent.start("echo up; exit 3")
        assert agent.next("exited")["status"] == 3


class TestLookingAtWorkers:
    def test_a_stop_is_told_and_so_is_its_end(self, agent: Agent) -> None:
        pid = agent.start("echo up; sleep 600")
        os.kill(pid, signal.SIGSTOP)
        assert agent.next("stopped")["task"] == 0
        os.kill(pid, signal.SIGCONT)
        assert agent.next("resumed")["task"] == 0

    def test_the_stop_of_a_workers_child_is_not(self, agent: Agent) -> None:
        agent.start("sleep 600 & kill -STOP $!; echo up; wait")
        os.kill(agent.start("echo up; sleep 600", task=1), signal.SIGSTOP)
        assert agent.next("stopped")["task"] == 1

    def test_the_stacks_of_a_python_worker(self, agent: Agent, tmp_path: Path) -> None:
        boot = str(Path(__file__).parents[2] / "worker" / "start.py")
        program = tmp_path / "waits.py"
        program.write_text(
            "import threading\ndef waits_for_ever():\n    print('up', flush=True)\n    threading.Event().wait()\n"
            "threading.Thread(target=threading.Event().wait, daemon=True).start()\nwaits_for_ever()\n"
        )
        agent.order(spawn(sys.executable, boot, str(program)))
        pid = agent.next("started")["pid"]
        agent.printed(0, b"up")
        for _ in range(20):
            agent.order({"do": "stacks"})
            told = agent.next("stacks")
            assert told["state"] in {"R", "S"}
            assert told["text"].count("in waits_for_ever") == 1
            assert told["text"].count("most recent call first") == 2
            agent.next("called")
        # However often it is asked, it holds no more than an answer or two.
        assert os.stat(f"/proc/{pid}/fd/255").st_blocks * 512 <= 2 * os.sysconf("SC_PAGE_SIZE")  # noqa: PTH116

    def test_one_that_ends_without_an_answer_is_not_waited_for(self, agent: Agent, tmp_path: Path) -> None:
        boot = str(Path(__file__).parents[2] / "worker" / "start.py")
        program = tmp_path / "deaf.py"
        program.write_text(
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})\nprint('up', flush=True)\n"
            "while True: signal.pause()\n"
        )
        agent.order(spawn(sys.executable, boot, str(program)))
        pid = agent.next("started")["pid"]
        agent.printed(0, b"up")
        agent.order({"do": "stacks"})
        os.kill(pid, signal.SIGKILL)
        told = agent.next("stacks")
        assert (told["state"], told["text"]) == ("", "")

    def test_where_nobody_lives_all_have_answered(self, agent: Agent) -> None:
        agent.order({"do": "stacks"})
        agent.next("called")

    def test_one_that_is_stopped_says_so_at_once(self, agent: Agent) -> None:
        pid = agent.start("echo up; sleep 600")
        os.kill(pid, signal.SIGSTOP)
        agent.next("stopped")
        agent.order({"do": "stacks"})
        told = agent.next("stacks")
        assert (told["state"], told["text"]) == ("T", "")

    def test_who_listens(self, agent: Agent) -> None:
        agent.order({"do": "lease", "count": 2, "ports": None, "listen": False})
        silent, used = agent.next("leased")["ports"]
        agent.order({"do": "listening"})
        assert agent.next("listening")["ports"] == []
        with socket.socket(socket.AF_INET6) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("::", used))
            server.listen()
            agent.order({"do": "listening"})
            assert agent.next("listening")["ports"] == [used]
        assert silent != used


class TestHeart:
    def test_it_beats(self, impatient: Agent) -> None:
        first, second = impatient.next("ping"), impatient.next("ping")
        assert second["clock"] > first["clock"]

    def test_a_launcher_that_says_nothing_is_taken_for_lost(
        self, open_agent: Start, monkeypatch: pytest.MonkeyPatch, watch: Callable[[int], Watched]
    ) -> None:
        monkeypatch.setattr("launcher.engines.local._START", IMPATIENT)
        monkeypatch.setattr(LocalEngine, "silence", 0.3)
        agent = open_agent()
        agent.order(shell(DEAF))
        worker = watch(agent.next("started")["pid"])
        assert agent.left() == "it ended with status 0"
        assert worker.ends(within=0)

    def test_one_that_only_pings_is_not(self, open_agent: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("launcher.engines.local._START", IMPATIENT)
        monkeypatch.setattr(LocalEngine, "silence", 1.0)
        agent = open_agent()
        agent.next("hello")
        for _ in range(25):
            agent.order({"do": "ping"})
            agent.next("ping")
        agent.start("echo up; exit 3")
        assert agent.next("exited")["status"] == 3


def test_it_looks_for_garbage_once_it_is_all_there() -> None:
    program = (
        "import gc; gc.disable(); import launcher.agent.__main__ as agent\n"
        "agent.guard.stand = lambda loop: print(gc.isenabled(), gc.get_freeze_count() > 0)\n"
        'agent.main(\'{"private": false, "silence": null}\')'
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert said.stdout == "True True\n"
