"""Runs as they are found from outside: those below a directory, and how each stands."""

from __future__ import annotations

import calendar
import json
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from launcher.errors import RequestError, TflaunchError, UnavailableError
from launcher.run_dir import OUTCOME, held, is_run, last_lines
from launcher.slurm.job import Job, kept
from launcher.slurm.queue import Entry, entries
from launcher.visit import ask, keeper

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

State = Literal[
    "pending", "starting", "running", "restarting", "stopping", "silent", "done", "failed", "stopped", "lost"
]

# A launcher that is alive and is not stopped answers within milliseconds, unless its machine is very busy.
PATIENCE = 10.0
_NAME = re.compile(r"-(\d{8}T\d{6}Z)-[0-9a-f]{6}$")


class Run(NamedTuple):
    """A run.

    Attributes:
        state: of one that is alive, as it tells itself; silent: it is, but does not answer. lost: its launcher is gone, and
            left no word of how it ended. pending: it is a job of Slurm's, and waits.
        told: what it says of itself (``Standing.as_json``), or outcome.json, or nothing.
        pid: its launcher's.
        entry: the job that it is, as that stands in Slurm's queue, where its launcher is still to come, or out of reach from here.
    """

    folder: Path
    state: State
    told: Mapping[str, Any]
    pid: int | None = None
    entry: Entry | None = None

    @property
    def alive(self) -> bool:
        """Its launcher is there."""
        return self.state not in {"done", "failed", "stopped", "lost"}

    @property
    def began(self) -> float:
        """When it was started, in seconds since the epoch."""
        return began(self.folder)

    @property
    def words(self) -> str:
        """Its state, as people read it."""
        return f"{self.state} ({self.told['exit_status']})" if self.state in {"failed", "stopped"} else self.state

    def as_json(self) -> dict[str, object]:
        """For programs: what it told, and what it is."""
        known = {"run": self.folder.name, "directory": str(self.folder), "state": self.state, "pid": self.pid}
        job = {"job": self.entry._asdict()} if self.entry else {}
        return {"since": self.began, "progress": progress(self), **self.told, **known, **job}


def look(folder: Path, seconds: float = PATIENCE) -> Run:
    """How the run in this directory stands."""
    job = kept(folder)
    if (run := _over(folder)) is not None:
        # One that was warned may be about to go on in another job, or wait for that.
        return (_queued(folder, job, over=True) if run.state == "stopped" else None) or run
    try:
        told = ask(folder, "status", seconds)
        return Run(folder, told["state"], told, told["pid"])
    except TimeoutError:
        return Run(folder, "silent", {}, keeper(folder))
    except FileNotFoundError:
        if (run := _queued(folder, job)) is not None:
            return run
        if held(folder):
            return Run(folder, "starting", {})
    except (OSError, ValueError):
        # The socket is that of another machine, say.
        if (run := _queued(folder, job)) is not None:
            return run
    # It may have ended between the two looks.
    return _over(folder) or Run(folder, "lost", {})


def _queued(folder: Path, job: Job | None, *, over: bool = False) -> Run | None:
    """How a run stands as Slurm sees its job; None where it is not in the queue."""
    entry = entries(job.noted).get(job.id) if job else None
    if entry is None:
        return None
    return Run(folder, "pending" if entry.waits else "stopping" if over else "running", {}, entry=entry)


def living(folder: Path) -> bool:
    """Whether this run is alive, with no look at how it stands."""
    return held(folder) or look(folder).alive


def below(base: Path) -> list[Path]:
    """The directories of the runs there, the newest first."""
    with suppress(OSError):
        return sorted(
            (path for path in base.iterdir() if not path.is_symlink() and is_run(path)), key=began, reverse=True
        )
    return []


def alive(base: Path) -> Path:
    """The newest run there that is alive.

    Raises:
        RequestError: none is.
    """
    found = next((folder for folder in below(base) if look(folder, 1.0).alive), None)
    if found is None:
        raise RequestError("no run is alive here", "tflaunch ps --all shows those that are over, too")
    return found


def reach(folder: Path) -> Run:
    """Look at a run that is to be asked for something; one that is about to start is waited for.

    Raises:
        RequestError: it is over.
        UnavailableError: it is lost, or does not answer.
    """
    until = time.monotonic() + PATIENCE
    while (run := look(folder, PATIENCE)).state == "starting" and run.pid is None and time.monotonic() < until:
        time.sleep(0.05)
    if run.entry is not None and not run.entry.waits:
        return run
    if run.pid is None or run.state == "silent":
        raise unreachable(run)
    return run


def unreachable(run: Run) -> TflaunchError:
    """Why this run cannot be asked for anything."""
    if run.state == "lost":
        return UnavailableError(f"{run.folder}: its launcher is gone", "it was killed, and its workers with it")
    if run.entry is not None:
        return UnavailableError(f"{run.folder}: {run.entry.words}")
    if run.alive:
        hint = f"somebody may have stopped it: kill -CONT {run.pid}" if run.pid else "it has no socket yet"
        return UnavailableError(f"{run.folder}: its launcher does not answer", hint)
    return RequestError(f"{run.folder} is over", f"{run.folder / OUTCOME} says how it ended")


def began(folder: Path) -> float:
    """When a run was started, by the name of its directory; 0 if that does not tell."""
    found = _NAME.search(folder.name)
    return calendar.timegm(time.strptime(found[1], "%Y%m%dT%H%M%SZ")) if found else 0.0


def progress(run: Run) -> Mapping[str, Any] | None:
    """The last step that it told, and when."""
    if "progress" in run.told:
        found: Mapping[str, Any] | None = run.told["progress"]
        return found
    for line in reversed(last_lines(run.folder / "events.jsonl", 1_000)):
        with suppress(ValueError):  # the first may be cut
            match json.loads(line):
                case {"event": "TaskReport", "record": {"kind": "progress", "step": int()} as record, "time": moment}:
                    return {**{name: record[name] for name in ("step", "of", "loss") if name in record}, "time": moment}
    return None


def tasks(folder: Path) -> list[str]:
    """The tasks of a run, such as ``worker 0``; none where it has not come to that."""
    with suppress(OSError, ValueError):
        return [task["task"] for task in json.loads((folder / "run.json").read_text())["tasks"]]
    return []


def _over(folder: Path) -> Run | None:
    with suppress(OSError, ValueError):
        told = json.loads((folder / OUTCOME).read_text())
        return Run(folder, _end(told), told)
    return None


def _end(outcome: Mapping[str, Any]) -> State:
    if outcome["exit_status"] == 0:
        return "done"
    return "stopped" if outcome["status"] == "interrupted" else "failed"
