"""One run of the real command in which something goes wrong, held against what is promised."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any

from tests.acceptance.conftest import Command, gone
from tests.chaos import remains
from tests.chaos.grid import AGENT, SAVED_EVERY, STEPS
from tests.chaos.promise import promised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.acceptance.conftest import Started
    from tests.chaos.grid import Case
    from tests.chaos.remains import Weights

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
    shared = remains.shared_memory()
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
    dead = {number for number, case in enumerate(cases) if case.victim in AGENT and promised(case).end == "resumes"}
    remains.assert_lines(ended.run_dir, ended.notes, cut=dead)
    remains.assert_ports_free(ended.events)
    remains.assert_nothing_strange(ended.run_dir)
    assert list((folder / "tmp").iterdir()) == []
    assert remains.shared_memory() <= shared
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
        remains.assert_equal(remains.weights(checkpoints(folder)), calm)
    remains.assert_whole(checkpoints(folder))
    return ended


def checkpoints(folder: Path) -> Path:
    """Where the checkpoints are, now that the command has ended."""
    return folder / "kept" if (folder / "kept").exists() else folder / CHECKPOINTS


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
