"""Workers forked from a process that has imported TensorFlow: when, and what if that process does not last."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.acceptance.conftest import Command, Started, gone

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="warm start is for Linux"),
]

# Says how it was started: the fork server is a child of the agent, as the worker is.
SIBLINGS = """
import os, sys
def is_server(pid):
    try:
        return "--fork-server" in open(f"/proc/{pid}/cmdline").read()
    except OSError:
        return False
parent = os.getppid()
children = open(f"/proc/{parent}/task/{parent}/children").read().split()
print("warm" if any(map(is_server, children)) else "cold", "tensorflow" in sys.modules, flush=True)
"""


def fork_server(started: Started) -> psutil.Process:
    """The fork server of a run, as soon as there is one."""
    while True:
        for child in psutil.Process(started.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "--fork-server" in child.cmdline():
                    return child


class TestWhen:
    @pytest.mark.parametrize(
        ("options", "text", "how"),
        [
            (["-n", "2"], "import tensorflow as tf", "warm"),
            (["-n", "2"], "import helper", "warm"),
            (["-n", "2"], "print('no import of it')", "cold"),
            (["-n", "1"], "import tensorflow as tf", "cold"),
            (["-n", "1", "--warm"], "print('no import of it')", "warm"),
            (["-n", "2", "--cold"], "import tensorflow as tf", "cold"),
            (["-n", "2", "--evaluator", "1"], "def late():\n    from tensorflow import keras", "warm"),
        ],
    )
    def test_a_script(self, tflaunch: Command, options: list[str], text: str, how: str) -> None:
        tflaunch.script("import keras", "helper.py")
        ended = tflaunch("run", *options, tflaunch.script(SIBLINGS + text))
        assert ended.status == 0, ended.err
        assert {line.partition(" | ")[2] for line in ended.lines if " | warm" in line or " | cold" in line} == {
            f"{how} False"
        }
        assert ended.run_dir is not None
        planned = json.loads((ended.run_dir / "run.json").read_text())["tasks"]
        assert {task["warm"] for task in planned} == {how == "warm"}

    def test_many_that_share_a_core(self, tflaunch: Command) -> None:
        hosts = {"hosts": [{"address": "localhost", "cores": 1}], "workers": 5}
        (tflaunch.cwd / "cluster.json").write_text(json.dumps(hosts))
        shown = tflaunch("plan", "cluster.json", tflaunch.script(SIBLINGS))
        assert "forked from a process that has started Python\n" in shown.out.decode()
        ended = tflaunch("run", "cluster.json", "script.py")
        assert ended.status == 0, ended.err
        assert sorted(ended.lines) == [f"worker {number} | warm False" for number in range(5)]
        # A neighbour of the script is imported, whatever the process that forks had loaded.
        tflaunch.script("found = 'mine'", "struct.py")
        ended = tflaunch("run", "cluster.json", tflaunch.script("import struct; print(struct.found)"))
        assert sorted(ended.lines) == [f"worker {number} | mine" for number in range(5)]
        assert "cold" not in ended.err

    def test_a_module_and_a_plan(self, tflaunch: Command) -> None:
        tflaunch.script("import tensorflow", "package/part.py")
        tflaunch.script("from .part import tensorflow", "package/__main__.py")
        shown = tflaunch("plan", "--json", "-n", "2", "-m", "package")
        assert [task["warm"] for task in json.loads(shown.out)["tasks"]] == [True, True]

    def test_what_the_program_sets_first_is_set_for_the_import(self, tflaunch: Command) -> None:
        pytest.importorskip("tf_keras")
        text = (
            "import os\nos.environ['TF_USE_LEGACY_KERAS'] = '1'\n"
            + SIBLINGS
            + "import tensorflow as tf; print(tf.keras.__name__)"
        )
        ended = tflaunch("run", "-n", "2", tflaunch.script(text))
        assert ended.status == 0, ended.err
        assert [line.partition(" | ")[2] for line in ended.lines if line.endswith("warm False")] == ["warm False"] * 2
        assert sum("tf_keras" in line for line in ended.lines) >= 2

    def test_what_it_may_set_otherwise_is_a_reason_against(self, tflaunch: Command) -> None:
        text = "import os, sys\nif len(sys.argv) > 1: os.environ['KERAS_BACKEND'] = sys.argv[1]\nimport keras"
        ended = tflaunch("run", "-n", "2", tflaunch.script(text))
        assert ended.status == 0
        assert "starting cold: importing TensorFlow depends on KERAS_BACKEND in script.py:2" in ended.err

    def test_only_python_can_be_warm(self, tflaunch: Command) -> None:
        ended = tflaunch("run", "--warm", "--", "true")
        assert ended.status == 2
        assert "--warm: is for Python scripts and modules" in ended.err

    def test_an_interpreter_without_tensorflow(self, tflaunch: Command, tmp_path: Path) -> None:
        import subprocess

        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
        bare = str(tmp_path / "bare" / "bin" / "python")
        ended = tflaunch("run", "-n", "2", "--warm", "--python", bare, tflaunch.script("print('ran')"))
        assert ended.status == 0
        assert ended.err.count("starting cold: ModuleNotFoundError: No module named 'tensorflow'") == 1
        assert sorted(ended.lines) == ["worker 0 | ran", "worker 1 | ran"]


class TestItsEnd:
    def test_while_it_imports_the_workers_start_without_it(self, tflaunch: Command) -> None:
        started = tflaunch.start("run", "-n", "3", "--warm", tflaunch.script("print('ran')"))
        fork_server(started).kill()
        status, told = started.end()
        assert status == 0
        assert told.count("starting cold: the fork server ended") == 1
        assert sorted(started.seen) == [f"worker {number} | ran" for number in range(3)]

    def test_once_they_run_it_is_not_missed(self, tflaunch: Command) -> None:
        text = (
            SIBLINGS
            + "import sys, time\nwhile not __import__('os').path.exists('go'): time.sleep(0.01)\nimport tensorflow\nprint('through')"
        )
        started = tflaunch.start("run", "-n", "2", tflaunch.script(text))
        started.until(r"\| warm", times=2)
        server = fork_server(started)
        server.kill()
        gone(lambda: [server] if server.is_running() else [])
        (tflaunch.cwd / "go").touch()
        started.until(r"\| through", times=2)
        assert started.end()[0] == 0

    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_while_it_imports(self, tflaunch: Command, signum: signal.Signals) -> None:
        started = tflaunch.start("run", "-n", "2", "--grace", "1000", "--warm", tflaunch.script("print('ran')"))
        fork_server(started).suspend()
        started.send(signum)
        status, told = started.end()
        assert status == 128 + signum
        assert "stopped: worker 0-1" in told
        assert started.seen == []

    @pytest.mark.parametrize("victim", ["launcher", "loop", "guard"])
    def test_it_goes_with_the_agent(self, tflaunch: Command, victim: str) -> None:
        started = tflaunch.start("run", "-n", "2", "--warm", tflaunch.script("print('ran')"))
        server = fork_server(started)
        guard, loop = started.agent()
        os.kill({"launcher": started.pid, "loop": loop.pid, "guard": guard.pid}[victim], signal.SIGKILL)
        started.process.wait(timeout=30)
        gone(lambda: [*tflaunch.left(), *([server] if server.is_running() else [])])


def test_how_a_forked_worker_ends_is_told_exactly(tflaunch: Command) -> None:
    text = (
        "import os, signal, time\nif os.environ['TFLAUNCH_TASK'] == 'worker:1': os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    ended = tflaunch("run", "-n", "2", "--warm", tflaunch.script(text + "time.sleep(1000)"))
    assert ended.status == 128 + signal.SIGSEGV
    assert "worker 1 failed first, on 127.0.0.1: killed by SIGSEGV" in ended.err
    assert "stopped: worker 0" in ended.err


def test_what_a_forked_worker_leaves_running_ends_with_it(tflaunch: Command) -> None:
    lifetime = str(300_000 + os.getpid())
    # The child of a fork without an exec in a session of its own: only its environment, and its output, tell whose it is.
    text = f"""
import os, subprocess, time
subprocess.Popen(["setsid", "sh", "-c", "env -i setsid sleep {lifetime} & sleep {lifetime}"])
if os.fork() == 0:
    os.setsid()
    os.close(1), os.close(2)
    time.sleep({lifetime})
if os.environ["TFLAUNCH_TASK"] == "worker:1":
    print("alone", flush=True)
    time.sleep({lifetime})
"""
    started = tflaunch.start("run", "-n", "2", "--warm", tflaunch.script(text))
    started.until("alone")
    # Whatever the first one left is gone, while the second one's is there: the worker itself, and what it forked.
    gone(lambda: [one for one in tflaunch.left() if _is_task(one, "worker:0")])
    assert sum(_is_task(one, "worker:1") for one in tflaunch.left()) > 1
    started.send(signal.SIGINT)
    assert started.end()[0] == 130


def _is_task(process: psutil.Process, name: str) -> bool:
    try:
        return process.environ().get("TFLAUNCH_TASK") == name
    except psutil.Error:
        return False
