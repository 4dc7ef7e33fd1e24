"""Runs that outlive the terminal: started in the background, found, watched and stopped from elsewhere."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import stat
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from launcher.errors import UnavailableError
from launcher.runs import look, reach
from tests.acceptance.conftest import MARK, TFLAUNCH, Command, Started, gone, living
from tests.acceptance.engine import HOSTS, install

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(120)

# Each waits for a line from its own fifo, and says it again; "end" is the last one.
OBEYS = """
import os, worker
task = os.environ["TFLAUNCH_TASK"].replace(":", "-")
print("up", flush=True)
worker.report("progress", step=7, of=10)
with open(task) as orders:
    for order in orders:
        if order.strip() == "end":
            break
        print(order.strip(), flush=True)
print("down", flush=True)
"""


def wait_for(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        psutil.wait_procs([psutil.Process(pid)], timeout=30)


class Background:
    """A run in the background, whose workers say what they are told to."""

    def __init__(self, tflaunch: Command, *options: str, workers: int = 2, script: str = OBEYS) -> None:
        self.tflaunch = tflaunch
        for number in range(workers):
            os.mkfifo(tflaunch.cwd / f"worker-{number}")
        ended = tflaunch("run", "-n", str(workers), "--detach", *options, tflaunch.script(script))
        assert ended.status == 0, ended.err
        self.said = ended.err
        self.folder = tflaunch.cwd / ended.lines[-1]
        self.pid = int(look(self.folder).pid or 0)
        self.orders = [open(tflaunch.cwd / f"worker-{number}", "w") for number in range(workers)]  # noqa: SIM115, PTH123

    def order(self, text: str, worker: int | None = None) -> None:
        for number, file in enumerate(self.orders):
            if worker in (None, number):
                file.write(text + "\n")
                file.flush()

    def end(self) -> None:
        self.order("end")
        self.over()

    def over(self) -> dict[str, Any]:
        wait_for(self.pid)
        told: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text())
        return told

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        wait_for(self.pid)


@pytest.fixture
def tflaunch(tflaunch: Command) -> Any:
    yield tflaunch
    # Whoever is still in the background is ended, whatever became of the test.
    for process in living(lambda one: one.environ().get(MARK) == tflaunch.mark and "--detach" in one.cmdline()):
        process.kill()
    gone(tflaunch.left)


def ps(tflaunch: Command, *options: str) -> list[dict[str, Any]]:
    ended = tflaunch("ps", "--json", *options)
    assert ended.status == 0, ended.err
    told: list[dict[str, Any]] = json.loads(ended.out)
    return told


class TestDetach:
    def test_it_goes_on_when_the_command_has_ended(self, tflaunch: Command) -> None:
        run = Background(tflaunch)
        assert "script: 2 workers on this machine" in run.said
        assert f"tflaunch attach {run.folder.name}" in run.said
        assert os.getsid(run.pid) == run.pid
        assert str(Path(f"/proc/{run.pid}/fd/0").readlink()) == os.devnull
        assert stat.S_IMODE((run.folder / "control.sock").stat().st_mode) == 0o600
        run.order("hello")
        run.end()
        assert run.over()["exit_status"] == 0
        log = (run.folder / "launcher.log").read_text()
        assert "worker 1 | hello\n" in log
        assert log.endswith(f"tflaunch  all done · logs in runs/{run.folder.name}\n")
        assert not (run.folder / "control.sock").exists()

    def test_it_holds_nothing_of_who_started_it(self, tflaunch: Command) -> None:
        read, write = os.pipe()
        os.mkfifo(tflaunch.cwd / "worker-0")
        script = tflaunch.script(OBEYS)
        command = [str(TFLAUNCH), "run", "--detach", script]
        environment = {**os.environ, MARK: tflaunch.mark}
        subprocess.run(command, cwd=tflaunch.cwd, env=environment, pass_fds=[write], check=True, capture_output=True)
        os.close(write)
        assert os.read(read, 1) == b""  # it ends although the run goes on
        os.close(read)
        assert tflaunch("stop").status == 0

    def test_what_is_wrong_is_told_at_once(self, tflaunch: Command) -> None:
        ended = tflaunch("run", "--detach", "nothing.py")
        assert (ended.status, "no such script: nothing.py" in ended.err) == (2, True)
        assert not (tflaunch.cwd / "runs").exists()

    def test_so_is_what_fails_before_all_is_started(self, tflaunch: Command) -> None:
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            ended = tflaunch("run", "--ports", f"{port}-{port}", "--detach", tflaunch.script("pass"))
        assert ended.status == 69, ended.err
        assert "cannot lease ports" in ended.err
        assert ended.out == b""
        assert ended.outcome["exit_status"] == 69

    def test_a_terminal_that_is_closed_takes_nothing_along(self, tflaunch: Command) -> None:
        os.mkfifo(tflaunch.cwd / "worker-0")
        tflaunch.script(OBEYS)
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(tflaunch.cwd)
            shell = f"{TFLAUNCH} run --detach script.py; cat"
            os.execve("/bin/sh", ["sh", "-c", shell], {**os.environ, MARK: tflaunch.mark})
        shown = b""
        while b"runs/script" not in shown.partition(b"tflaunch stop")[2]:
            shown += os.read(terminal, 4096)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGHUP
        (run,) = ps(tflaunch)
        assert run["state"] == "running"
        assert psutil.Process(run["pid"]).terminal() is None
        (tflaunch.cwd / "worker-0").write_text("end\n")
        wait_for(run["pid"])
        assert ps(tflaunch)[0]["state"] == "done"


class TestStarting:
    """One of two hosts does not say hello: the launcher waits for it for 30 s."""

    @pytest.fixture
    def waits(self, tflaunch: Command) -> Callable[..., Started]:
        environment = install(tflaunch.cwd / "installed")
        (tflaunch.cwd / f"silent-{HOSTS[1]}").touch()
        hosts = [{"address": host} for host in HOSTS]
        settings = {"script": tflaunch.script("pass"), "engine": "two", "hosts": hosts}
        (tflaunch.cwd / "cluster.json").write_text(json.dumps(settings))
        return lambda *options: tflaunch.start("run", "cluster.json", *options, env=environment)

    def test_the_door_is_open(self, tflaunch: Command, waits: Callable[..., Started]) -> None:
        started = waits()
        while (found := ps(tflaunch)) == [] or found[0]["pid"] is None:
            pass
        assert (found[0]["state"], found[0]["pid"]) == ("starting", started.pid)
        ended = tflaunch("stacks")
        assert (ended.status, "no workers are running" in ended.err) == (69, True)
        assert tflaunch("stop").status == 0
        status, err = started.end()
        assert (status, "interrupted by SIGTERM" in err) == (143, True)
        assert ps(tflaunch)[0]["state"] == "stopped"

    def test_ctrl_c_reaches_what_has_no_terminal(self, tflaunch: Command, waits: Callable[..., Started]) -> None:
        started = waits("--detach")
        while (found := ps(tflaunch)) == [] or found[0]["pid"] is None:
            pass
        assert found[0]["pid"] != started.pid
        started.send(signal.SIGINT)
        status, err = started.end()
        assert (status, "interrupted by SIGINT" in err) == (130, True)
        assert ps(tflaunch)[0]["state"] == "stopped"

    def test_a_terminal_that_is_closed_early_takes_nothing_along(
        self, tflaunch: Command, waits: Callable[..., Started]
    ) -> None:
        started = waits("--detach")
        while (found := ps(tflaunch)) == [] or found[0]["pid"] is None:
            pass
        started.send(signal.SIGHUP)
        assert started.end()[0] == 129
        assert ps(tflaunch)[0]["state"] == "starting"
        assert tflaunch("stop").status == 0


class TestLooking:
    def test_at_a_run_that_is_alive(self, tflaunch: Command) -> None:
        run = Background(tflaunch, "--max-restarts", "3")
        told = json.loads(tflaunch("status", "--json").out)
        assert (told["state"], told["pid"], told["attempt"], told["max_restarts"]) == ("running", run.pid, 0, 3)
        assert [(one["task"], one["host"], one["state"]) for one in told["tasks"]] == [
            (f"worker {number}", "127.0.0.1", "running") for number in range(2)
        ]
        while (told := json.loads(tflaunch("status", "--json").out))["progress"] is None:
            pass
        assert (told["progress"]["step"], told["progress"]["of"]) == (7, 10)
        lines = tflaunch("status", run.folder.name).lines
        assert lines[0].startswith(f"{run.folder.name} · running · started ")
        assert lines[1].startswith("step 7 of 10 · ")
        header, row = tflaunch("ps").lines
        assert header.split() == ["RUN", "STATE", "TASKS", "STEP", "STARTED", "PID"]
        assert row.split()[:4] == [run.folder.name, "running", "2", "7"]
        run.end()
        assert tflaunch("ps").lines[1].split()[:4] == [run.folder.name, "done", "2", "7"]
        lines = tflaunch("status").lines
        assert " · done · " in lines[0]
        assert lines[-1] == "  worker 1  127.0.0.1  done (status 0)"

    def test_at_one_whose_launcher_was_killed(self, tflaunch: Command) -> None:
        run = Background(tflaunch)
        run.kill()
        gone(tflaunch.left)
        (told,) = ps(tflaunch)
        assert (told["state"], told["pid"], told["progress"]["step"]) == ("lost", None, 7)
        assert tflaunch("status").status == 0
        for command in ("attach", "stop"):
            ended = tflaunch(command, run.folder.name)
            assert (ended.status, "its launcher is gone" in ended.err) == (69, True)
            ended = tflaunch(command)
            assert (ended.status, "no run is alive here" in ended.err) == (2, True)
        assert "worker 0 | up" in tflaunch("logs", "-f").lines

    def test_at_one_that_does_not_answer(self, tflaunch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        run = Background(tflaunch)
        os.kill(run.pid, signal.SIGSTOP)
        (told,) = ps(tflaunch)
        assert (told["state"], told["pid"]) == ("silent", run.pid)
        monkeypatch.setattr("launcher.runs.PATIENCE", 0.1)
        with pytest.raises(UnavailableError, match="does not answer") as caught:
            reach(run.folder)
        assert caught.value.hint.endswith(f"kill -CONT {run.pid}")
        os.kill(run.pid, signal.SIGCONT)
        run.end()

    def test_at_many(self, tflaunch: Command) -> None:
        for number in range(7):
            assert tflaunch("run", tflaunch.script(f"exit({number})")).status == number
        assert {one["exit_status"] for one in ps(tflaunch, "--all")} == set(range(7))
        assert len(ps(tflaunch)) == 5
        assert len(ps(tflaunch, "--run-dir", "runs", "--run-dir", "runs")) == 10
        ended = tflaunch("ps", "--run-dir", "nowhere")
        assert (ended.status, "no such directory: nowhere" in ended.err) == (2, True)

    def test_at_a_pause_before_a_restart(self, tflaunch: Command) -> None:
        settings = {"script": tflaunch.script("exit(3)"), "max_restarts": 9, "backoff": 600}
        (tflaunch.cwd / "cluster.json").write_text(json.dumps(settings))
        assert tflaunch("run", "cluster.json", "--detach").status == 0
        while (told := json.loads(tflaunch("status", "--json").out))["attempt"] < 1 or told["state"] != "restarting":
            pass
        ended = tflaunch("stop")
        assert (ended.status, "has ended with status 3" in ended.out.decode()) == (0, True)
        log = (tflaunch.cwd / "runs" / "latest" / "launcher.log").read_text()
        assert "not starting again: interrupted by SIGTERM" in log

    @pytest.mark.parametrize("there", [False, True])
    @pytest.mark.parametrize(
        ("command", "status"), [("ps", 0), ("status", 2), ("attach", 2), ("logs", 2), ("stop", 2), ("stacks", 2)]
    )
    def test_where_there_is_none(self, tflaunch: Command, command: str, status: int, there: bool) -> None:
        if there:
            (tflaunch.cwd / "runs").mkdir()
        ended = tflaunch(command)
        assert ended.status == status
        assert len((ended.err + ended.out.decode()).splitlines()) in (1, 2)
        assert tflaunch("status", "nothing").status == 2


class TestAttach:
    def test_to_the_end(self, tflaunch: Command) -> None:
        run = Background(tflaunch, script=OBEYS + "raise SystemExit(int(task[-1]) * 5)\n")
        run.order("before")
        while "worker 1 | before" not in (run.folder / "launcher.log").read_text():
            pass
        watching = tflaunch.start("attach")
        watching.until(r"worker \d \| before", times=2)
        run.order("after")
        watching.until(r"worker \d \| after", times=2)
        run.order("end", worker=1)
        status, err = watching.end()
        assert status == 5
        assert "worker 1 | down" in watching.seen
        assert "worker 1 failed first" in err
        assert f"exit status 5 · logs in runs/{run.folder.name}" in err

    def test_and_leaving_with_ctrl_c(self, tflaunch: Command) -> None:
        run = Background(tflaunch)
        watching = [tflaunch.start("attach"), tflaunch.start("attach", run.folder.name)]
        for one in watching:
            one.until(r"\| up", times=2)
        watching[0].send(signal.SIGINT)
        status, err = watching[0].end()
        assert (status, "detached; the run goes on" in err) == (0, True)
        run.order("still here")
        watching[1].until(r"\| still here", times=2)
        run.end()
        assert watching[1].end()[0] == 0

    def test_to_a_run_in_another_terminal(self, tflaunch: Command) -> None:
        os.mkfifo(tflaunch.cwd / "worker-0")
        started = tflaunch.start("run", tflaunch.script(OBEYS))
        started.until("up")
        watching = tflaunch.start("attach")
        watching.until("up")
        started.send(signal.SIGTERM)
        assert started.end()[0] == watching.end()[0] == 143

    def test_a_reader_that_is_gone_ends_it(self, tflaunch: Command) -> None:
        run = Background(tflaunch)
        watching = tflaunch.start("attach")
        watching.until("up")
        assert watching.process.stdout is not None
        watching.process.stdout.close()
        run.order("x")
        assert watching.process.wait(30) == 141
        run.end()

    def test_one_that_does_not_read_holds_nobody_up(self, tflaunch: Command) -> None:
        run = Background(tflaunch, script=OBEYS + "for _ in range(300_000): print('x' * 99)\n")
        watching = tflaunch.start("attach")
        watching.until("up", times=2)
        run.end()
        assert run.over()["exit_status"] == 0
        assert watching.end()[0] == 0

    def test_a_launcher_that_is_killed_meanwhile(self, tflaunch: Command) -> None:
        run = Background(tflaunch)
        watching = tflaunch.start("attach")
        watching.until("up", times=2)
        run.kill()
        status, err = watching.end()
        assert (status, "its launcher is gone" in err) == (69, True)


class TestLogs:
    def test_of_one_task_and_of_all(self, tflaunch: Command) -> None:
        run = Background(tflaunch)
        run.order("zero", worker=0)
        run.order("one", worker=1)
        run.end()
        assert tflaunch("logs", "worker", "1").lines == ["up", "one", "down"]
        assert tflaunch("logs", run.folder.name, "worker-0").lines == ["up", "zero", "down"]
        every = [
            f"worker {task} | {line}" for task, word in enumerate(("zero", "one")) for line in ("up", word, "down")
        ]
        assert tflaunch("logs").lines == every
        ended = tflaunch("logs", "--attempt", "1")
        assert (ended.status, "has no attempt 1" in ended.err) == (2, True)
        assert tflaunch("logs", "a", "b").status == 2
        ended = tflaunch("logs", "worker", "2")
        assert (ended.status, "has no worker-2" in ended.err) == (2, True)

    def test_across_a_restart(self, tflaunch: Command) -> None:
        script = OBEYS + "if os.environ['TFLAUNCH_ATTEMPT'] == '0': raise SystemExit(1)\n"
        run = Background(tflaunch, "--max-restarts", "1", workers=1, script=script)
        following = [tflaunch.start("logs", "-f"), tflaunch.start("logs", "worker", "0", "-f")]
        for one in following:
            one.until("up")
        run.order("first\nend")
        for one in following:
            one.until("up")
        (tflaunch.cwd / "worker-0").write_text("second\nend\n")
        assert run.over()["exit_status"] == 0
        for one in following:
            assert one.end()[0] == 0
        assert following[1].seen == ["up", "first", "down", "up", "second", "down"]
        assert following[0].seen == [f"worker 0 | {line}" for line in following[1].seen]
        assert tflaunch("logs", "worker-0", "--attempt", "1").lines == ["up", "second", "down"]


class TestStop:
    def test_it_walks_the_ladder(self, tflaunch: Command) -> None:
        saves = "import signal\nsignal.signal(15, lambda *_: (print('saved', flush=True), exit(0)))\n"
        run = Background(tflaunch, script=saves + OBEYS)
        ended = tflaunch("stop")
        assert ended.status == 0, ended.err
        assert ended.lines == [f"{run.folder.name} has ended with status 143: interrupted by SIGTERM"]
        assert tflaunch("logs", "worker", "0").lines == ["up", "saved"]
        again = tflaunch("stop", run.folder.name)
        assert (again.status, "is over" in again.err) == (2, True)

    def test_at_once(self, tflaunch: Command) -> None:
        stubborn = "import signal\nsignal.signal(15, signal.SIG_IGN)\n"
        run = Background(tflaunch, "--grace", "600", script=stubborn + OBEYS)
        patient = tflaunch.start("stop")
        events = run.folder / "events.jsonl"
        while "StopAsked" not in events.read_text():
            pass
        assert tflaunch("stop", "--now").status == 0
        assert patient.end()[0] == 0
        assert {one["signal"] for one in run.over()["tasks"]} == {signal.SIGKILL}

    def test_two_who_ask_do_not_kill(self, tflaunch: Command) -> None:
        slow = "import signal\nsignal.signal(15, lambda *_: print('saving', flush=True))\n"
        run = Background(tflaunch, script=slow + OBEYS)
        both = [tflaunch.start("stop") for _ in range(2)]
        events = run.folder / "events.jsonl"
        while events.read_text().count("StopAsked") < 2:
            pass
        run.order("end")
        assert [one.end()[0] for one in both] == [0, 0]
        assert {one["signal"] for one in run.over()["tasks"]} == {None}


class TestTrouble:
    def test_a_directory_that_is_deleted(self, tflaunch: Command) -> None:
        run = Background(tflaunch)
        watching = tflaunch.start("attach")
        watching.until("up", times=2)
        shutil.rmtree(run.folder)
        run.order("still here")
        watching.until("still here", times=2)
        run.order("end")
        status, err = watching.end()
        assert (status, "CANNOT WRITE" in err, "all done" in err) == (0, True, True)
        assert ps(tflaunch) == []

    def test_a_disk_that_is_full(self, tflaunch: Command, small_disk: Callable[[], Path]) -> None:
        disk = small_disk()
        run = Background(tflaunch, "--run-dir", str(disk))
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(bytes(1 << 20))
        watching = tflaunch.start("attach", str(run.folder))
        watching.until("up", times=2)
        run.order("x" * 9000)
        watching.until("xxx", times=2)
        (disk / "filler").unlink()
        run.order("there is room")
        watching.until("there is room", times=2)
        run.end()
        assert watching.end()[0] == 0
        assert "bytes are missing here" in (run.folder / "attempt-0" / "worker-0.log").read_text()
        assert "all done" in (run.folder / "launcher.log").read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """Mounts a small file system; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount() -> Path:
        path = tmp_path / "disk"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a file system can be mounted by root alone")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)
