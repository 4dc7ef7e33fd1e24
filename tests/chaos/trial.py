"""One run of the real command in which something goes wrong, and what is there to be seen of it afterwards, from outside."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any

import psutil

from tests.acceptance.conftest import Command, gone
from tests.chaos.grid import AGENT, SAVED_EVERY, STEPS
from tests.chaos.promise import promised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.acceptance.conftest import Started
    from tests.chaos.grid import Case

    Weights = Mapping[str, Any]

ROOT = Path(__file__).parents[2]
CHECKPOINTS = "checkpoints"
_EPOCHS = STEPS // 6
# Where a memory cgroup can be made, and what its limit is called: in version 1, and in version 2.
_CGROUPS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))
# As much as a worker that has imported TensorFlow may have more.
_LIMIT = 60_000_000
# A disk of its own for the checkpoints, for as long as the command runs.
_UNSHARE = (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user"))
_MOUNT = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
_KEEP = f'"$@"; status=$?; rm -f {CHECKPOINTS}/filler; cp -a {CHECKPOINTS}/. kept; exit $status'
# What a training leaves in its directory. The file of the lock stays, and nobody holds it.
_THEIRS = re.compile(r"checkpoint|ckpt-\d+|export|lock|[a-z]+\.png")
_PATIENCE = 90.0


class Skipped(Exception):
    """This machine does not let it happen; the message says why."""


@dataclass(frozen=True)
class Run:
    """A command that has ended.

    Attributes:
        faults: when the fault of each attempt happened, in seconds since the epoch; None where it did not.
    """

    status: int
    err: str
    run_dir: Path
    notes: Path
    faults: Sequence[float | None]

    @property
    def outcome(self) -> Mapping[str, Any]:
        loaded: Mapping[str, Any] = json.loads((self.run_dir / "outcome.json").read_text())
        return loaded

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir / "events.jsonl").read_text().splitlines()]


def run(folder: Path, cases: Sequence[Case] = (), *, notes: str = "notes") -> Run:
    """Train in ``folder``, with a case for each of the first attempts. Nothing that was started is left.

    Raises:
        Skipped: one of the cases cannot be had here.
    """
    kept = Path(folder, notes)
    for attempt in range(3):
        (kept / f"attempt-{attempt}").mkdir(parents=True)
    for name in ("tmp", CHECKPOINTS):
        Path(folder, name).mkdir(exist_ok=True)
    shared = _shared_memory()
    with _one_kind_of_kill(cases), _cgroup(cases) as group:
        settings = {"cases": cases, "notes": str(kept), "group": group}
        env = {"CHAOS": json.dumps(settings), "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
        command = Command(folder, wrapper=_wrapper(cases))
        try:
            before = command.runs()
            started = command.start(*_arguments(), env=env)
            for attempt, case in enumerate(cases):
                if case.victim in AGENT:
                    _hit_agent(started, case, kept / f"attempt-{attempt}")
            out, err = started.process.communicate(timeout=_PATIENCE)
            gone(command.left)
        finally:
            command.end()
    assert out, err
    ended = Run(started.process.returncode, err.decode(), (command.runs() - before).pop(), kept, _times(kept))
    _check_lines(ended, cases)
    _check_ports(ended)
    assert list((folder / "tmp").iterdir()) == []
    assert _shared_memory() <= shared
    _check_run_dir(ended.run_dir)
    return ended


def keeps(case: Case, folder: Path, calm: Weights) -> Run:
    """Have a case happen, and hold everything that is promised for it against what is there afterwards."""
    promise = promised(case)
    ended = run(folder, [case])
    outcome = ended.outcome
    story = f"{case}\n{json.dumps(outcome, indent=1)}\n{ended.err}"
    match promise.end:
        case "goes on":
            assert (ended.status, outcome["restarts"]) == (0, []), story
        case "resumes":
            assert ended.status == 0, story
            assert [(one["attempt"], one["cause"]) for one in outcome["restarts"]] == [(0, promise.cause)], story
            assert promise.words in outcome["restarts"][0]["reason"], story
        case "stops":
            assert (ended.status, outcome["status"], outcome["restarts"]) == (143, "interrupted", []), story
            assert promise.words in outcome["reason"], story
            again = run(folder, notes="again")
            assert again.status == 0, again.err
        case "is refused":
            assert (ended.status, outcome["cause"], outcome["restarts"]) == (2, promise.cause, []), story
            assert promise.words in outcome["reason"], story
    assert ended.faults[0] is not None, story
    assert promise.words in ended.err or promise.end == "goes on", story
    if promise.end != "is refused":
        assert_equal(weights(checkpoints(folder)), calm)
    check_checkpoints(checkpoints(folder))
    return ended


def checkpoints(folder: Path) -> Path:
    """Where the checkpoints are, now that the command has ended."""
    return folder / "kept" if (folder / "kept").exists() else folder / CHECKPOINTS


def weights(directory: Path) -> Weights:
    """All that the newest checkpoint holds of model and optimizer."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(directory))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith(("model", "optimizer"))]
    return {name: reader.get_tensor(name) for name in names}


def assert_equal(found: Weights, calm: Weights) -> None:
    """The weights are those of a training to which nothing has happened."""
    import numpy as np

    assert found.keys() == calm.keys() != set()
    for name, value in calm.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def check_checkpoints(directory: Path) -> None:
    """No half-written file is left, and nobody holds the lock."""
    left = [one.name for one in directory.iterdir() if not _THEIRS.fullmatch(one.name)]
    left += [one.name for one in directory.rglob("*") if ".writing" in one.name or one.name.startswith(".")]
    assert left == [], left
    with suppress(FileNotFoundError), (directory / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _arguments() -> list[str]:
    start = ["run", "-n", "2", "--warm", "--max-restarts", "2", "--checkpoint-dir", CHECKPOINTS]
    training = ["--epochs", str(_EPOCHS), "--save-every", f"{SAVED_EVERY} steps", "--steps-per-call", "1"]
    return [*start, "-m", "tests.chaos.program", "linear", *training]


def _wrapper(cases: Sequence[Case]) -> tuple[str, ...]:
    if not any(case.fault == "full disk" for case in cases):
        return ()
    for unshare in _UNSHARE:
        if (
            shutil.which("unshare")
            and not subprocess.run([*unshare, *_MOUNT, "/tmp"], stderr=DEVNULL, check=False).returncode
        ):
            return (*unshare, "sh", "-c", f"{' '.join(_MOUNT)} {CHECKPOINTS} && {{ {_KEEP}; }}", "sh")
    raise Skipped("a disk of its own takes root, or user namespaces")


@contextmanager
def _one_kind_of_kill(cases: Sequence[Case]) -> Iterator[None]:
    """Have nothing run out of memory while a SIGKILL is to be told from that: the kernel counts for the whole machine."""
    faults = {case.fault for case in cases}
    with Path(__file__).open("rb") as file:
        if "out of memory" in faults:
            fcntl.flock(file, fcntl.LOCK_EX)
        elif "SIGKILL" in faults:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def _cgroup(cases: Sequence[Case]) -> Iterator[str]:
    """A memory cgroup that is too small, if one is needed."""
    if not any(case.fault == "out of memory" for case in cases):
        yield ""
        return
    for parent, limit in _CGROUPS:
        group = Path(parent, f"tflaunch-chaos-{os.getpid()}")
        with ExitStack() as stack:
            try:
                group.mkdir()
                stack.callback(group.rmdir)
                (group / limit).write_text(str(_LIMIT))
            except OSError:
                continue
            yield str(group)
            return
    raise Skipped("it takes root and a memory cgroup to run out of memory")


def _hit_agent(started: Started, case: Case, notes: Path) -> None:
    """When the program says that it is time, do to the agent what is to be done to it."""
    while not (notes / "now").exists():
        assert started.process.poll() is None, started.end()
        time.sleep(0.005)
    guard, loop = started.agent()
    (notes / "fault").write_text(str(time.time()))
    os.kill((guard if case.victim == "guard" else loop).pid, signal.Signals[case.fault])
    (notes / "go").touch()


def _times(notes: Path) -> list[float | None]:
    files = [notes / f"attempt-{attempt}" / "fault" for attempt in range(3)]
    return [float(file.read_text()) if file.exists() else None for file in files]


def _check_lines(ended: Run, cases: Sequence[Case]) -> None:
    """Every line of every worker is in its file, in order, and whole."""
    for note in ended.notes.glob("attempt-*/printed-*"):
        log = ended.run_dir / note.parent.name / f"{note.name.removeprefix('printed-')}.log"
        found = [int(number) for number in re.findall(r"^chaos line (\d+) ", log.read_text(), re.MULTILINE)]
        assert found == list(range(1, len(found) + 1)), log
        attempt = int(note.parent.name.removeprefix("attempt-"))
        # An agent that dies takes along what it has not passed on.
        if not (attempt < len(cases) and cases[attempt].victim in AGENT):
            # The last may have been printed, and not noted.
            assert note.stat().st_size <= len(found) <= note.stat().st_size + 1, log


def _check_ports(ended: Run) -> None:
    """Whatever was leased can be bound; what only waits for packets that are under way (TIME_WAIT) is nobody's."""
    for event in ended.events:
        for port in event.get("ports", []) if event["event"] == "PortsLeased" else []:
            with socket.socket(socket.AF_INET6) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("::", port))


def _check_run_dir(run_dir: Path) -> None:
    known = {"run.json", "events.jsonl", "metrics.jsonl", "agents", "outcome.json"}
    assert {one.name for one in run_dir.iterdir() if not one.name.startswith("attempt-")} <= known
    assert (run_dir.parent / "latest").resolve() == run_dir.resolve()
    assert {one.name for one in run_dir.parent.iterdir() if one.name.startswith(".")} == set()


def _shared_memory() -> set[str]:
    """What lies in shared memory and is in use by nobody."""
    mapped = ""
    for process in psutil.pids():
        with suppress(OSError):
            mapped += Path(f"/proc/{process}/maps").read_text()
    return {one.name for one in Path("/dev/shm").glob("*") if str(one) not in mapped}
