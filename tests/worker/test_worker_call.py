"""What a test sends, called by boot as the agent has it called: in a process of its own."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from worker import boot, call

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

BOOT = Path(boot.__file__).with_name("start.py")


def order(
    folder: Path,
    function: Callable[..., object] | None = None,
    *args: object,
    script: list[str] | None = None,
    **more: Any,
) -> Path:
    payload = folder / "payload.pickle"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        pickled = cloudpickle.dumps((function, args, {}))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    whole = {"function": pickled, "script": script or [], "path": sys.path, "faults": {}, **more}
    payload.write_bytes(pickle.dumps(whole))
    return payload


def called(payload: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, BOOT, "--call", payload],
        env={**os.environ, "TFLAUNCH_TASK": "worker:1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    answer = payload.with_name("worker-1.pickle")
    return done, pickle.loads(answer.read_bytes()) if answer.exists() else {}


def test_the_value_is_left_for_the_test(tmp_path: Path) -> None:
    done, answer = called(order(tmp_path, divmod, 7, 3))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert pickle.loads(answer["value"]) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["payload.pickle", "worker-1.pickle"]


def test_the_end_waits_for_threads_and_for_what_was_registered(tmp_path: Path) -> None:
    def leave_something() -> None:
        import atexit
        import threading

        atexit.register(print, "registered")
        started = threading.Event()
        threading.Thread(target=lambda: (started.wait(), print("a thread"))).start()
        print("unflushed", end=" ")
        started.set()

    done, answer = called(order(tmp_path, leave_something))
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["unflushed", "a", "thread", "registered"], "")
    assert pickle.loads(answer["value"]) is None


def test_an_exception_is_left_and_ends_the_process(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("no")

    done, answer = called(order(tmp_path, fail))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: no"
    assert answer["traceback"].splitlines()[-1] == "ValueError: no"
    assert "call.py" not in done.stderr + answer["traceback"]
    assert repr(pickle.loads(answer["error"])) == "ValueError('no')"


def test_one_that_leaves_has_no_answer(tmp_path: Path) -> None:
    done, answer = called(order(tmp_path, sys.exit, 3))
    assert (done.returncode, answer) == (3, {})


def test_a_script_is_run_as_by_boot(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import sys\nprint(__name__, __file__, sys.argv, sys.orig_argv[1:], sys.path[0])\n")
    command = [str(script), "--lr", "1"]
    done, answer = called(order(tmp_path, script=command))
    assert done.stdout == f"__main__ {script} {command} {command} {tmp_path}\n"
    assert pickle.loads(answer["value"]) is None


def test_worker_can_be_imported(tmp_path: Path) -> None:
    def file_of_worker() -> str:
        import worker

        return str(worker.__file__)

    path = [entry for entry in sys.path if Path(entry) != BOOT.parents[1]]
    _, answer = called(order(tmp_path, file_of_worker, path=path))
    assert pickle.loads(answer["value"]) == str(BOOT.with_name("__init__.py"))


def test_steps_and_disks_are_for_the_task_that_they_name(tmp_path: Path) -> None:
    faults = {"worker:0": {"steps": [(1, "SIGKILL")]}, "worker:1": {"steps": [(2, "SIGKILL")]}}

    def steps() -> None:
        from worker import report

        for step in range(4):
            print(step, flush=True)
            report("progress", step=step)

    done, answer = called(order(tmp_path, steps, faults=faults))
    assert (done.returncode, done.stdout, answer) == (-signal.SIGKILL, "0\n1\n2\n", {})


def test_what_the_system_does_not_allow_is_said(tmp_path: Path) -> None:
    faults = {"worker:1": {"disks": [(str(tmp_path / "nowhere"), 0)]}}
    done, answer = called(order(tmp_path, os.getpid, faults=faults))
    assert done.returncode == 1
    assert answer["unprivileged"].startswith(f"no disk of its own can be mounted at {tmp_path / 'nowhere'} here: ")


def test_it_stays_until_its_peers_have_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "PATIENCE", 60.0)
    peer = tmp_path / "worker-1.pickle"
    (tmp_path / "chief-0.pickle").touch()
    timer = threading.Timer(0.05, peer.touch)
    timer.start()
    call.await_peers(tmp_path, ["chief:0", "worker:1", "ps:0", "evaluator:0"])
    assert peer.exists()
    timer.join()


def test_it_does_not_stay_for_one_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "PATIENCE", 0.0)
    call.await_peers(tmp_path, ["worker:0"])
