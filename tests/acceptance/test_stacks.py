"""Where every worker is: told before a run that hung is ended, and whenever somebody asks."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack, closing

import pytest

from launcher.cli.stacks import stacks
from launcher.door import reachable
from launcher.errors import UnavailableError
from tests.acceptance.conftest import Command

# Worker 1 sleeps in line 8; the others wait for it in line 10.
APART = """
import os, socket, time
import worker
ours, theirs = socket.socketpair()

def wait():
    if os.environ["TFLAUNCH_TASK"] == "worker:1":
        time.sleep(1000)
    else:
        ours.recv(1)

worker.report("progress", step=7)
print("up", os.getpid(), flush=True)
wait()
"""
WHERE = ["worker 0, 2 in wait (script.py:10) <- script.py:14", "worker 1 in wait (script.py:8) <- script.py:14"]


def shown(err: str) -> list[str]:
    """The lines of the last report in what tflaunch said."""
    lines = [line.strip() for line in err.splitlines()]
    start = max(at for at, line in enumerate(lines) if line.startswith("where everybody was")) + 1
    return [line for line in lines[start:] if line.startswith("worker ")]


def test_a_hang_tells_who_is_where(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "3", "--hang-deadline", "1", tflaunch.script(APART))
    assert ended.status == 124
    assert shown(ended.err) == WHERE
    assert ended.outcome["stacks"] == WHERE
    assert ended.run_dir is not None
    whole = (ended.run_dir / "attempt-0" / "stacks.txt").read_text()
    assert whole.count(f'File "{tflaunch.cwd}/script.py", line 10 in wait') == 1
    assert "boot.py" not in whole


def test_each_attempt_that_hung_has_its_own(tflaunch: Command) -> None:
    script = tflaunch.script(APART)
    ended = tflaunch("run", "-n", "3", "--hang-deadline", "1", "--max-restarts", "1", script)
    assert ended.status == 124
    assert ended.err.count(WHERE[0]) == 2
    assert ended.outcome["restarts"][0]["stacks"] == WHERE
    assert ended.run_dir is not None
    assert all((ended.run_dir / f"attempt-{number}" / "stacks.txt").exists() for number in range(2))


def test_so_does_a_deadline(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "3", "--timeout", "2", tflaunch.script(APART))
    assert ended.status == 124
    assert shown(ended.err) == WHERE


def test_a_deadline_of_what_is_no_python(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "2", "--timeout", "0.5", "--", "sleep", "1000")
    assert ended.status == 124
    assert shown(ended.err) == ["worker 0-1 told nothing (no Python worker, or a very busy one)"]


def test_the_peers_of_one_that_is_stopped_tell_too(tflaunch: Command) -> None:
    started = tflaunch.start("run", "-n", "2", tflaunch.script(APART))
    lines = [started.until(r"\| up") for _ in range(2)]
    os.kill(next(int(line.split()[-1]) for line in lines if line.startswith("worker 1")), signal.SIGSTOP)
    status, err = started.end()
    assert status == 128 + signal.SIGSTOP
    assert shown(err)[:2] == ["worker 0 in wait (script.py:10) <- script.py:14", "worker 1 stopped by a signal"]


LATE = """
import json, os, socket, time
config = json.loads(os.environ["TF_CONFIG"])

def download():
    time.sleep(1000)

if config["task"]["index"]:
    download()
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("", int(config["cluster"]["worker"][0].rpartition(":")[2])))
server.listen()
time.sleep(1000)
"""


def test_what_those_do_that_do_not_join(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "3", "--join-deadline", "2", tflaunch.script(LATE))
    assert ended.status == 124
    reason = "worker 1-2 did not listen for peers within 2 s: in download() of script.py:6"
    assert ended.outcome["reason"] == reason
    assert reason in ended.err
    assert shown(ended.err)[0] == "worker 0 at script.py:14"


def ask(tflaunch: Command, *args: str) -> list[str]:
    ended = tflaunch("stacks", *args)
    assert ended.status == 0, ended.err
    return ended.lines


def until_told(tflaunch: Command, place: str) -> list[str]:
    """Ask until a worker is at this place: what it prints before, it prints before it is there."""
    while place not in "\n".join(found := ask(tflaunch)):
        pass
    return found


class TestAsking:
    def test_a_run_that_goes_on(self, tflaunch: Command) -> None:
        started = tflaunch.start("run", "-n", "3", tflaunch.script(APART))
        started.until(r"\| up", times=3)
        until_told(tflaunch, "0, 2 in wait")
        assert until_told(tflaunch, "worker 1 in wait") == WHERE
        (folder,) = tflaunch.runs()
        for name in (folder.name, str(folder), f"runs/{folder.name}", "runs/latest"):
            assert ask(tflaunch, name) == WHERE
        full = ask(tflaunch, "--full")
        assert full[0] == "worker 0, 2:"
        assert f'    File "{tflaunch.cwd}/script.py", line 10 in wait' in full
        told = json.loads("\n".join(ask(tflaunch, "--json")))
        assert told == {"run": f"runs/{folder.name}", "stacks": WHERE, "full": "\n".join(full) + "\n"}
        assert not (folder / "attempt-0" / "stacks.txt").exists()
        started.send(signal.SIGTERM)
        status, err = started.end()
        assert (status, "where everybody was" in err) == (143, False)
        assert not (folder / "control.sock").exists()
        ended = tflaunch("stacks")
        assert (ended.status, ended.out) == (2, b"")
        assert f"runs/{folder.name} is over" in ended.err

    def test_who_works_goes_on_undisturbed(self, tflaunch: Command) -> None:
        script = "for n in range(2000): print(n, flush=True)\nopen('fifo').read()\n"
        os.mkfifo(tflaunch.cwd / "fifo")
        started = tflaunch.start("run", "-n", "1", tflaunch.script(script))
        started.until(r"\| 1$")
        for _ in range(3):
            ask(tflaunch)
        (tflaunch.cwd / "fifo").write_text("go on")
        assert started.end()[0] == 0
        log = tflaunch.cwd / "runs" / "latest" / "attempt-0" / "worker-0.log"
        assert log.read_text().split() == [str(n) for n in range(2000)]

    def test_a_worker_that_is_stopped(self, tflaunch: Command) -> None:
        started = tflaunch.start("run", "-n", "2", tflaunch.script(APART))
        up = [started.until(r"\| up") for _ in range(2)]
        pid = next(int(line.split()[-1]) for line in up if line.startswith("worker 1"))
        os.kill(pid, signal.SIGSTOP)
        assert until_told(tflaunch, "worker 0 in wait")[1] == "worker 1 stopped by a signal"
        os.kill(pid, signal.SIGCONT)
        until_told(tflaunch, "worker 1 in wait")
        started.send(signal.SIGTERM)
        assert started.end()[0] == 143

    def test_what_is_no_python_is_not_hurt(self, tflaunch: Command) -> None:
        started = tflaunch.start("run", "-n", "2", "--", "sh", "-c", "echo up; sleep 1000")
        started.until(r"\| up", times=2)
        assert ask(tflaunch) == ["worker 0-1 told nothing (no Python worker, or a very busy one)"]
        started.send(signal.SIGTERM)
        assert started.end()[0] == 143

    def test_visitors_of_any_kind(self, tflaunch: Command) -> None:
        started = tflaunch.start("run", "-n", "3", tflaunch.script(APART))
        started.until(r"\| up", times=3)
        until_told(tflaunch, "worker 1 in wait")
        (folder,) = tflaunch.runs()
        with ExitStack() as kept:
            for words in (b"", b"{", b"nonsense\n", b'{"do": "stacks"}\n'):
                visitor = kept.enter_context(closing(socket.socket(socket.AF_UNIX)))
                with reachable(folder) as path:
                    visitor.connect(path)
                visitor.sendall(words)
            both = [tflaunch.start("stacks") for _ in range(2)]
            for one in both:
                assert one.end()[0] == 0
                assert one.seen == WHERE
            started.send(signal.SIGTERM)
            assert started.end()[0] == 143

    def test_a_launcher_that_is_gone(self, tflaunch: Command) -> None:
        started = tflaunch.start("run", "-n", "2", tflaunch.script(APART))
        started.until(r"\| up", times=2)
        started.send(signal.SIGKILL)
        started.end()
        ended = tflaunch("stacks")
        assert ended.status == 69
        assert "its launcher is gone" in ended.err

    def test_a_launcher_that_does_not_answer(self, tflaunch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        started = tflaunch.start("run", "-n", "2", tflaunch.script(APART))
        started.until(r"\| up", times=2)
        started.send(signal.SIGSTOP)
        monkeypatch.chdir(tflaunch.cwd)
        monkeypatch.setattr("launcher.cli.stacks._PATIENCE", 0.1)
        with pytest.raises(UnavailableError, match="its launcher does not answer"):
            stacks.main([], standalone_mode=False)
        started.send(signal.SIGCONT)
        started.send(signal.SIGTERM)
        assert started.end()[0] == 143

    def test_where_there_is_no_run(self, tflaunch: Command) -> None:
        ended = tflaunch("stacks")
        assert (ended.status, "there is no run here" in ended.err) == (2, True)
        ended = tflaunch("stacks", "nothing")
        assert (ended.status, "no such run: nothing" in ended.err) == (2, True)

    def test_a_pause_before_a_restart(self, tflaunch: Command) -> None:
        settings = {"script": tflaunch.script("exit(3)"), "max_restarts": 9, "backoff": 600}
        (tflaunch.cwd / "cluster.json").write_text(json.dumps(settings))
        started = tflaunch.start("run", "cluster.json")
        events = tflaunch.cwd / "runs" / "latest" / "events.jsonl"
        while not events.exists() or events.read_text().count("TaskExited") < 2:
            pass
        while (ended := tflaunch("stacks")).status == 2:  # until the second attempt's end has been seen
            pass
        assert ended.status == 69
        assert "no workers are running" in ended.err
        started.send(signal.SIGTERM)
        started.end()


COLLECTIVE = """
import os, time
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()

@tf.function
def step():
    return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)

def train():
    step()
    if os.environ["TFLAUNCH_TASK"] == "worker:1":
        print("up", flush=True)
        time.sleep(1000)
    step()

train()
"""


@pytest.mark.tensorflow
@pytest.mark.timeout(180)
def test_one_that_takes_no_part_in_a_collective(tflaunch: Command) -> None:
    pytest.importorskip("tensorflow")
    started = tflaunch.start("run", "-n", "3", tflaunch.script(COLLECTIVE))
    started.until(r"\| up")
    while len(lines := ask(tflaunch)) != 2 or "step (" in lines[0]:
        pass
    waiting, sleeping = lines
    assert waiting.startswith("worker 0, 2 in quick_execute (tensorflow/")
    assert waiting.endswith(" <- train (script.py:15) <- script.py:17")
    assert sleeping == "worker 1 in train (script.py:14) <- script.py:17"
    started.send(signal.SIGINT)
    assert started.end()[0] == 130
