"""How a run ends: well, badly, from outside; what is said about it; and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.conftest import PATIENCE, TFLAUNCH, Command, gone, living

WAIT = "import time; print('up', flush=True); time.sleep(1000)"
FIRST_FAILS = """
import os, time
if os.environ["TFLAUNCH_TASK"] == "worker:1":
    {fault}
time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("raise ValueError('no such luck')", 1, "ValueError: no such luck (script.py:4)"),
        ("raise SystemExit(7)", 7, "exited with status 7"),
        ("raise SystemExit('gave up')", 1, "exited: gave up"),
        ("os._exit(3)", 3, "exited with status 3"),
        ("os.kill(os.getpid(), 9)", 137, "killed by SIGKILL"),
        ("os.kill(os.getpid(), 11)", 139, "killed by SIGSEGV"),
        ("import nowhere", 1, "ModuleNotFoundError: No module named 'nowhere' (script.py:4)"),
    ],
)
def test_the_verdict_names_the_task_that_failed_and_why(
    tflaunch: Command, fault: str, status: int, reason: str
) -> None:
    ended = tflaunch("run", "-n", "3", tflaunch.script(FIRST_FAILS.format(fault=fault)))
    assert ended.status == status
    assert f"worker 1 failed first, on 127.0.0.1: {reason}" in ended.err
    assert f"exit status {status}" in ended.err.splitlines()[-1]
    outcome = ended.outcome
    assert (outcome["status"], outcome["blame"], outcome["cause"]) == ("failed", "worker", "worker 1")
    assert {one["task"]: one["fate"] for one in outcome["tasks"]} == {
        "worker 0": "stopped", "worker 1": "failed", "worker 2": "stopped",
    }  # fmt: skip


def test_last_lines_are_told(tflaunch: Command) -> None:
    fault = "print('one'); print('two'); raise SystemExit(1)"
    ended = tflaunch("run", "-n", "2", tflaunch.script(FIRST_FAILS.format(fault=fault)))
    told = ended.err.splitlines()
    at = next(i for i, line in enumerate(told) if "its last lines:" in line)
    assert [line.strip() for line in told[at + 1 : at + 3]] == ["one", "two"]


def test_all_done_is_zero(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "4", "--", "true")
    assert ended.status == 0
    assert ended.outcome["status"] == "ok"


def test_an_evaluator_that_outlives_the_cluster_is_stopped_after_its_grace(tflaunch: Command) -> None:
    script = tflaunch.script("import os, time\nif 'evaluator' in os.environ['TFLAUNCH_TASK']: time.sleep(1000)")
    ended = tflaunch("run", "-n", "2", "--evaluator", "1", "--grace", "0.3", script)
    assert ended.status == 0, ended.err
    assert ended.outcome["tasks"][-1]["fate"] == "stopped"


def test_an_evaluator_that_fails_does_not_stop_the_training(tflaunch: Command) -> None:
    text = (
        "import os, sys\nif 'evaluator' in os.environ['TFLAUNCH_TASK']: sys.exit(5)\nsys.stdin.read(); print('trained')"
    )
    ended = tflaunch("run", "-n", "1", "--evaluator", "1", tflaunch.script(text))
    assert ended.status == 5
    assert "worker 0    | trained" in ended.lines
    assert {one["task"]: one["fate"] for one in ended.outcome["tasks"]} == {"worker 0": "done", "evaluator 0": "failed"}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_workers_finish_and_tells_the_whole_story(tflaunch: Command, signum: signal.Signals) -> None:
    text = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
    started = tflaunch.start("run", "-n", "2", tflaunch.script(text + WAIT))
    started.until(r"\| up", times=2)
    started.send(signum)
    status, err = started.end()
    assert status == 128 + signum
    assert sum("saved" in line for line in started.seen) == 2
    assert f"interrupted by {signum.name}" in err
    assert json.loads((tflaunch.cwd / "runs/latest/outcome.json").read_text())["status"] == "interrupted"


def test_a_second_interrupt_kills(tflaunch: Command) -> None:
    text = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\nwhile True:\n    print('up', flush=True); signal.pause()"
    started = tflaunch.start("run", "-n", "2", tflaunch.script(text))
    started.until(r"\| up", times=2)
    started.send(signal.SIGINT)
    started.until(r"\| no")
    started.send(signal.SIGINT)
    assert started.end()[0] == 130


def test_who_ignores_sigterm_is_killed_after_its_grace(tflaunch: Command) -> None:
    text = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: signal.pause()"
    started = tflaunch.start("run", "-n", "2", "--grace", "0.2", tflaunch.script(text))
    started.until(r"\| up", times=2)
    started.send(signal.SIGTERM)
    assert started.end()[0] == 143


def test_a_stopped_worker_is_woken_to_be_stopped(tflaunch: Command) -> None:
    started = tflaunch.start(
        "run",
        "-n",
        "2",
        "--grace",
        "1000",
        tflaunch.script("import os, time\nprint('up', os.getpid(), flush=True)\ntime.sleep(1000)"),
    )
    os.kill(int(started.until(r"\| up").split()[-1]), signal.SIGSTOP)
    started.until(r"\| up")
    started.send(signal.SIGTERM)
    assert started.end()[0] == 143


def test_a_deadline(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "2", "--timeout", "0.5", tflaunch.script(WAIT))
    assert ended.status == 124
    assert "deadline of 0.5 s passed" in ended.err


# Grandchildren in sessions of their own, one of them without any of our environment.
BREEDER = """
import os, subprocess, time
subprocess.Popen(["setsid", "sh", "-c", "sleep {0} & env -i setsid sleep {0} & sleep {0}"])
print("up", flush=True)
time.sleep({0})
"""


@pytest.mark.parametrize("start", ["--cold", "--warm"])
@pytest.mark.parametrize("victim", ["launcher", "loop", "guard", "launcher and loop", "guard and loop", "a worker"])
def test_nobody_survives_a_kill(tflaunch: Command, victim: str, start: str) -> None:
    lifetime = str(100_000 + os.getpid())
    started = tflaunch.start("run", "-n", "2", start, tflaunch.script(BREEDER.format(lifetime)))
    started.until(r"\| up", times=2)
    guard, loop = started.agent()
    victims = {
        "launcher": [started.pid], "loop": [loop.pid], "guard": [guard.pid], "launcher and loop": [started.pid, loop.pid],
        "guard and loop": [guard.pid, loop.pid],
        "a worker": [child.pid for child in loop.children() if "script.py" in child.cmdline()][:1],
    }  # fmt: skip
    for pid in victims[victim]:
        os.kill(pid, signal.SIGKILL)

    started.process.wait(timeout=30)
    gone(lambda: [*tflaunch.left(), *living(lambda process: lifetime in process.cmdline())])
    if victim in {"loop", "guard", "guard and loop"}:
        assert started.process.returncode == 69
        assert "the agent on 127.0.0.1 was lost: killed by SIGKILL" in started.end()[1]
    if victim == "a worker":
        assert started.process.returncode == 137


def test_what_a_worker_leaves_running_ends_with_it(tflaunch: Command) -> None:
    lifetime = str(200_000 + os.getpid())
    ended = tflaunch("run", "--", "sh", "-c", f"setsid sleep {lifetime} & sleep {lifetime} & echo done")
    assert ended.status == 0
    assert ended.lines == ["worker 0 | done"]


def _memory_cgroup() -> Path | None:
    version1 = Path("/sys/fs/cgroup/memory")
    if os.geteuid() == 0 and (version1 / "memory.limit_in_bytes").exists() and os.access(version1, os.W_OK):
        return version1
    return None


@pytest.mark.skipif(_memory_cgroup() is None, reason="needs root and a memory cgroup (version 1) to run out of")
def test_out_of_memory_is_told_as_such(tflaunch: Command) -> None:
    root = _memory_cgroup()
    assert root is not None
    group = root / f"tflaunch-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text("60000000")
        fault = f"open('{group}/cgroup.procs', 'w').write(str(os.getpid())); b'x' * 10; held = [os.urandom(1 << 20) for _ in range(500)]"
        ended = tflaunch("run", "-n", "2", tflaunch.script(FIRST_FAILS.format(fault=fault)))
    finally:
        group.rmdir()
    assert ended.status == 137
    assert "worker 1 failed first, on 127.0.0.1: killed by the kernel: out of memory" in ended.err


def test_a_signal_at_any_moment_of_the_start_leaves_an_outcome(tflaunch: Command) -> None:
    for _ in range(5):
        before = tflaunch.runs()
        started = tflaunch.start("run", "-n", "2", "--", "sleep", "1000")
        while not (new := tflaunch.runs() - before):
            assert started.process.poll() is None
        started.send(signal.SIGTERM)
        status, err = started.end()
        assert status == 143, err
        assert "interrupted by SIGTERM" in err
        assert json.loads((new.pop() / "outcome.json").read_text())["status"] == "interrupted"


def test_garbage_on_the_control_descriptor_harms_nobody(tflaunch: Command) -> None:
    text = r"""
import os
os.write(3, b"[" * 60000 + b"\n\xff\xfe\n[]\n{}\n" + b'{"kind": "error", "time": "now"}\n{"kind": 7}\n')
for _ in range(100):
    os.write(3, b"x" * 4096)
os.write(3, b"\n")
"""
    ended = tflaunch("run", "-n", "2", tflaunch.script(text))
    assert ended.status == 0, ended.err


def test_times_longer_than_the_system_can_wait(tflaunch: Command) -> None:
    assert tflaunch("run", "--timeout", "900000000", "--grace", "900000000", "--", "true").status == 0


@pytest.mark.parametrize("message", ["\n", ""])
def test_an_exit_with_nothing_to_say(tflaunch: Command, message: str) -> None:
    ended = tflaunch("run", tflaunch.script(f"import sys; sys.exit({message!r})"))
    assert ended.status == 1
    assert "exited with status 1" in ended.err


@pytest.mark.parametrize("frozen", ["guard", "loop", "both"])
def test_a_suspended_agent_cannot_keep_a_run_alive(tflaunch: Command, frozen: str) -> None:
    started = tflaunch.start("run", "-n", "2", tflaunch.script(WAIT))
    started.until(r"\| up", times=2)
    guard, loop = started.agent()
    for process in {"guard": [guard], "loop": [loop], "both": [guard, loop]}[frozen]:
        process.suspend()
    started.send(signal.SIGTERM)
    assert started.end()[0] == 143


@pytest.mark.parametrize(
    "oddity", ["signal.pthread_sigmask(signal.SIG_BLOCK, {17, 15})", "signal.signal(17, signal.SIG_IGN)"]
)
def test_signals_that_the_caller_had_blocked_or_ignored(tflaunch: Command, oddity: str) -> None:
    import subprocess
    import sys

    code = f"import os, signal, sys; {oddity}; os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", code, str(TFLAUNCH), "run", "-n", "2", "--", "sh", "-c", "exit 3"]
    ended = subprocess.run(command, cwd=tflaunch.cwd, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "exited with status 3" in ended.stderr
