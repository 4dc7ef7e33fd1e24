"""What runs in each worker of a chaos test: the trainer, with a fault placed in it. Run as a module, by ``tflaunch run``.

``CHAOS`` in the environment is a JSON object: ``cases``, one for each attempt that is to have one, in order; ``notes``,
a folder for what the test has to know; ``group``, a memory cgroup that is too small.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.grid import AGENT, Case

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.grid import Point

_PATIENCE = 60.0
# Printed right before a fault: what is on its way when a worker ends must arrive.
_LAST_WORDS = 100
# On these the process does not go on by itself: whoever waits for it would wait for ever.
_AT_ONCE = ("SIGKILL", "SIGSTOP", "os._exit", "abort", "out of memory")


class Chaos:
    """The fault of this attempt, for this worker to come across."""

    def __init__(self, settings: dict[str, Any], attempt: int, task: str) -> None:
        cases = settings["cases"]
        self._case = Case(*cases[attempt]) if attempt < len(cases) else None
        self._notes = Path(settings["notes"], f"attempt-{attempt}")
        self._group = settings["group"]
        self._task = task
        # Someone inside has to say when it is time for an agent.
        actor = "worker:0" if self._case and self._case.victim == "chief" else "worker:1"
        self._mine = self._case is not None and task == actor
        self._printing = threading.Lock()
        self._lines = 0
        self._disk: Path | None = None

    def come_by(self, point: Point, step: int = 0) -> None:
        """Every worker comes by here, in its main thread. If it is time, it happens."""
        self.say()
        self._fill()
        if self._mine and self._case is not None and self._is_due(self._case, point, step):
            self._mine = False
            if self._case.phase == "checkpoint":
                _wait_for(self._notes / "writing")
            self._meet(self._case)

    def hold(self, point: Point, step: int) -> None:
        """The thread that writes checkpoints comes by here, and waits while it happens."""
        if self._case is not None and (point, step) == (self._case.point, self._case.step):
            (self._notes / "writing").touch()
            _wait_for(self._notes / "go")

    def awaits(self, step: int) -> bool:
        """Whether the checkpoint of this step must not be left out."""
        return self._case is not None and self._case.phase == "checkpoint" and step == self._case.step

    def say(self, text: str = "") -> None:
        """Print a numbered line, and note that it was printed."""
        with self._printing:
            self._lines += 1
            # In one write: TensorFlow's own lines come from other threads.
            sys.stdout.write(f"chaos line {self._lines} {text}\n")
            sys.stdout.flush()
            with (self._notes / f"printed-{self._task.replace(':', '-')}").open("ab") as note:
                note.write(b".")

    def _is_due(self, case: Case, point: Point, step: int) -> bool:
        if case.phase == "checkpoint":
            return point == "step" and step >= case.step
        return point == case.point and step >= case.step

    def _meet(self, case: Case) -> None:
        if case.point == "joining":
            _wait_for_peers()
        for _ in range(_LAST_WORDS):
            self.say("before it")
        if case.victim in AGENT:
            (self._notes / "now").touch()
            _wait_for(self._notes / "go")
            return
        (self._notes / "fault").write_text(str(time.time()))
        if case.victim == "worker" or case.fault not in _AT_ONCE:
            (self._notes / "go").touch()
        self._happen(case)
        (self._notes / "go").touch()

    def _happen(self, case: Case) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        match case.fault:
            case "exception":
                raise RuntimeError("chaos")
            case "sys.exit":
                sys.exit(3)
            case "os._exit":
                os._exit(3)
            case "abort":
                os.abort()
            case "out of memory":
                Path(self._group, "cgroup.procs").write_text(str(os.getpid()))
                held = [os.urandom(1 << 20) for _ in range(500)]
                raise RuntimeError(f"{len(held)} MiB could be had")
            case "full disk":
                self._disk = Path(os.environ["TFLAUNCH_CHECKPOINT_DIR"])
                self._fill()
            case name:
                os.kill(os.getpid(), signal.Signals[name])

    def _fill(self) -> None:
        """Leave no room on the disk, where that is the fault. A checkpoint that failed has made some."""
        if self._disk is not None:
            with suppress(OSError), (self._disk / "filler").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 10))


def _wait_for(path: Path) -> None:
    _wait(path.exists, str(path))


def _wait_for_peers() -> None:
    config = json.loads(os.environ["TF_CONFIG"])
    peers = [one for number, one in enumerate(config["cluster"]["worker"]) if number != config["task"]["index"]]
    _wait(lambda: all(map(_answers, peers)), "peers")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), _PATIENCE):
        return True
    return False


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.005)


def _place(chaos: Chaos) -> None:
    """Have the trainer come by at every point. TensorFlow is imported by now."""
    from worker import progress, train
    from worker.checkpoint.checkpoints import Checkpoints
    from worker.checkpoint.chief import Chief
    from worker.checkpoint.disk import Disk
    from worker.checkpoint.store import Store

    progress._RECORD_EVERY = 0.0
    _before(train, "build", lambda *_, **__: chaos.come_by("joining"))
    _before(train, "_stepped", lambda _, start, *__: chaos.come_by("step", start.step))
    _before(train, "_test", lambda *_: chaos.come_by("testing"))
    _before(Checkpoints, "finish", lambda *_: chaos.come_by("saving"))
    _before(Checkpoints, "export", lambda *_, **__: chaos.come_by("exporting"))
    _before(Disk, "rename", lambda _, name, *__, **___: chaos.hold("renaming", _step_of(name)))
    _before(Store, "keep", lambda _, steps: chaos.hold("naming", max(steps)))
    _before(Chief, "save", lambda one, position, *_, **__: chaos.awaits(position.step) and one.wait())
    _before(Disk, "checksum", lambda _, name: chaos.hold("written", _step_of(name.partition("/")[0])))


def _step_of(name: str) -> int:
    head, _, step = name.rpartition("ckpt-")
    return int(step) if head == ".writing-" else -1


def _before(owner: Any, name: str, call: Callable[..., object]) -> None:
    """Have a function call another one first, with what it is called with."""
    function = getattr(owner, name)

    def both(*args: Any, **keywords: Any) -> Any:
        call(*args, **keywords)
        return function(*args, **keywords)

    setattr(owner, name, both)


def main() -> int:
    attempt = int(os.environ["TFLAUNCH_ATTEMPT"])
    chaos = Chaos(json.loads(os.environ["CHAOS"]), attempt, os.environ["TFLAUNCH_TASK"])
    if attempt:
        # Somebody has made room.
        Path(os.environ["TFLAUNCH_CHECKPOINT_DIR"], "filler").unlink(missing_ok=True)
    chaos.come_by("started")
    from worker import __main__ as trainer

    # Called once TensorFlow is there, and nothing is done with it yet.
    _before(trainer, "find", lambda *_: _place(chaos))
    status = trainer.main(sys.argv[1:], os.environ)
    chaos.come_by("leaving")
    chaos.say("the last")
    return status


if __name__ == "__main__":
    sys.exit(main())
