"""The run directory: where everything about a run is kept, and the only room that knows its layout.

runs/<name>-<UTC time>-<id>/    mode 0700
run.json                    the plan (no secrets) and the versions
events.jsonl                everything that happened but output, a line each
metrics.jsonl               what the training measured, a line an epoch, if it told
attempt-0/worker-0.log      every byte that the task wrote, in order; attempt-1 and so on after restarts
attempt-0/stacks.txt        where all threads of all tasks were, before it was ended for want of progress or time
agents/<host>.log           what an agent, or what carries it, had to say itself
job.sh, job.json            on Slurm: the job's script, where we have written it, and the job's id
program.pyc                 a script's code, compiled once for many workers
launcher.log                what a console would have shown, if it runs in the background
outcome.json                how it ended; where the run went on after that, in attempt-0 and so on, too
runs/latest                     a link to the newest
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import RequestError
from launcher.json_text import document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from launcher.events import Event

RUNS = Path("runs")
OUTCOME = "outcome.json"
CONSOLE = "launcher.log"
JOB, JOB_SCRIPT = "job.json", "job.sh"
# As much of the end of a log as is read to show its last lines.
_TAIL = 64 << 10


class RunDir:
    """One run's directory. It is locked as long as the run is alive, whatever becomes of its launcher.

    Attributes:
        warn: is called, once a file, with a line for the user when writing fails.
        lock: the descriptor that holds the lock; None where directories cannot be locked.
        before: how many attempts earlier launchers have made in it.
    """

    def __init__(self, path: Path, warn: Callable[[str], object]) -> None:
        self.path = path
        self.warn = warn
        self.lock: int | None = None
        self.before = sum(1 for _ in path.glob("attempt-*"))
        self._attempt = path / f"attempt-{self.before}"
        self._logs: dict[str, AppendOnly] = {}
        self._events = AppendOnly(path / "events.jsonl", self._complain)
        self._metrics = AppendOnly(path / "metrics.jsonl", self._complain)

    @classmethod
    def named(cls, base: Path, name: str, warn: Callable[[str], object]) -> RunDir:
        """A new one below ``base``, which ``make`` will make."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return cls(base / f"{name}-{stamp}-{os.urandom(3).hex()}", warn)

    def beside(self, suffix: str) -> RunDir:
        """Another one, whose name is this one's and more."""
        return RunDir(self.path.with_name(self.path.name + suffix), self.warn)

    def announce(self) -> None:
        """Make the directory of a run that somebody else will start.

        Raises:
            RequestError: nothing can be written there.
        """
        base = self.path.parent
        with _kept_under(base):
            base.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700)
            (self.path / "agents").mkdir(mode=0o700)
        _point(base / "latest", self.path.name)

    def make(self) -> None:
        """Make the directory, or go on in one that is there, and point ``latest`` beside it to it.

        Raises:
            RequestError: nothing can be written there, or it is no run's, or that of one that is alive.
        """
        base = self.path.parent
        if self.path.exists() and not is_run(self.path):
            raise RequestError(f"{self.path} is not the directory of a run", "name one, or one that is not there yet")
        if held(self.path):
            raise RequestError(f"the run in {self.path} is alive", f"tflaunch stop {self.path} ends it")
        with _kept_under(base):
            base.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            self.lock = _lock(self.path)
            (self.path / "agents").mkdir(mode=0o700, exist_ok=True)
            self._put_away()
            self._attempt.mkdir(mode=0o700)
        _point(base / "latest", self.path.name)

    def _put_away(self) -> None:
        """How the run ended before belongs to the last attempt that there was."""
        with suppress(FileNotFoundError):
            (self.path / OUTCOME).rename(self.path / f"attempt-{max(0, self.before - 1)}" / OUTCOME)

    def begin(self, attempt: int) -> None:
        """Have what the tasks write from now on be that of this attempt, the first of this launcher being 0."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        self._attempt = self.path / f"attempt-{self.before + attempt}"
        with suppress(OSError):  # what cannot be written is told when something is
            self._attempt.mkdir(mode=0o700, exist_ok=True)

    def log_path(self, slug: str) -> Path:
        """Where the output of the task ``slug`` goes."""
        return self._attempt / f"{slug}.log"

    def agent_log(self, host: str) -> Path:
        """Where the agent of ``host`` complains."""
        return self.path / "agents" / f"{host.replace('/', '_')}.log"

    def agent_words(self, host: str) -> str:
        """The last line that an agent, or what carries it, complained with; empty when there is none."""
        return "".join(last_lines(self.agent_log(host), 1))

    def output(self, slug: str, data: bytes) -> None:
        """Append to a task's log. A full disk is reported, and does not stop the run."""
        log = self._logs.get(slug)
        if log is None:
            log = self._logs[slug] = AppendOnly(self.log_path(slug), self._complain)
        log.write(data)

    def event(self, event: Event, now: float) -> None:
        """Append to events.jsonl."""
        line = {"time": round(now, 6), "event": type(event).__name__, **event._asdict()}
        self._events.write(json.dumps(line, default=str).encode() + b"\n")

    def metrics(self, task: str, record: Mapping[str, object]) -> None:
        """Append to metrics.jsonl what a task measured."""
        measured = {name: value for name, value in record.items() if name != "kind"}
        self._metrics.write(json.dumps({"task": task, **measured}, default=str).encode() + b"\n")

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON document whole, or not at all."""
        self._write_whole(self.path / name, document(content))

    def keep_stacks(self, text: str) -> None:
        """Write down where all tasks of this attempt were."""
        self._write_whole(self._attempt / "stacks.txt", text)

    def _write_whole(self, path: Path, text: str) -> None:
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(text)
            partial.replace(path)
        except OSError as error:
            self.warn(f"CANNOT WRITE {path}: {error.strerror}")
            with suppress(OSError):
                partial.unlink()

    def close(self) -> None:
        """Close the files."""
        for log in (*self._logs.values(), self._events, self._metrics):
            log.close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def _complain(self, text: str) -> None:
        self.warn(text)


def find(run: str | None) -> Path:
    """The directory of a run that is named by it, or by its name below ``runs``; None is the newest one there.

    Raises:
        RequestError: there is no such run.
    """
    if run is None:
        if not is_run(RUNS / "latest"):
            raise RequestError("there is no run here", "name the directory of one")
        return RUNS / (RUNS / "latest").resolve().name
    found = next((path for path in (Path(run), RUNS / run) if is_run(path)), None)
    if found is None:
        raise RequestError(f"no such run: {run}", "name its directory, or what that is called below runs")
    return found


def named(folder: Path) -> str:
    """How to name this run to ``find``, in short."""
    return folder.name if folder.parent == RUNS else str(folder)


def held(folder: Path) -> bool:
    """Whether the launcher of the run in this directory is there."""
    import fcntl

    with suppress(OSError), _opened(folder) as descriptor:
        try:
            fcntl.flock(
                descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB
            )  # shared: two who look do not mistake each other for it
        except BlockingIOError:
            return True
    return False


def _lock(folder: Path) -> int | None:
    """The kernel lets go of it when the process ends, and not before: no file that is left behind can tell that."""
    import fcntl

    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None


@contextmanager
def _kept_under(base: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = f"cannot keep the run under {base}: {error.strerror}"
        raise RequestError(said, "choose another place with --run-dir") from None


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_run(path: Path) -> bool:
    """Whether this is the directory of a run."""
    with suppress(OSError):  # somebody else's
        return (path / "agents").is_dir()
    return False


class AppendOnly:
    """A file that takes every byte, and says so when it cannot: training outlives a full disk."""

    def __init__(self, path: Path, warn: Callable[[str], object]) -> None:
        self._path = path
        self._warn = warn
        self._descriptor: int | None = None
        self._lost = 0
        self._warned = False

    def write(self, data: bytes) -> None:
        """Append ``data``; what cannot be written is counted, and named in the file once there is room again."""
        rest = memoryview(data)
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if self._lost:
                gap = f"\n[tflaunch: {self._lost} bytes are missing here: the disk was full]\n"
                os.write(self._descriptor, gap.encode())
                self._lost = 0
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._lost += len(rest)
            if not self._warned:
                self._warned = True
                self._warn(f"CANNOT WRITE {self._path}: {error.strerror}. The run goes on; its log has a gap.")

    def close(self) -> None:
        """Close the file, if it was ever opened."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, decoded for showing; progress bars in their last state. Empty when there is no log."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").split("\n")
        shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        return [line for line in shown if line.strip()][-count:]
    return []


def _point(link: Path, target: str) -> None:
    # By way of a rename, so that the link is never missing; a run does not fail for want of a convenience.
    with suppress(OSError):
        fresh = link.with_name(f".latest-{os.getpid()}-{os.urandom(2).hex()}")
        fresh.symlink_to(target)
        try:
            fresh.replace(link)
        except OSError:  # somebody's own directory is called so
            fresh.unlink()
