"""The job that a run is: what is kept of it in the run's directory, and what comes after its time is over."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.errors import Interrupted, TflaunchError, UnavailableError
from launcher.run_dir import JOB, JOB_SCRIPT, OUTCOME, RunDir
from launcher.slurm import controller

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.config import ClusterConfig
    from launcher.runs import Run
    from launcher.slurm.queue import Entry

_NEVER_STARTED = "cancelled before it started"
WARNING = signal.SIGUSR1
"""What Slurm sends before the time is over, as the job's script has asked it to."""


class Job(NamedTuple):
    """A job.

    Attributes:
        id: as Slurm's commands take it; ``7_2`` is one of an array.
        node: where its launcher runs; empty until it does.
        noted: when this was written down, in seconds since the epoch.
    """

    id: str
    node: str = ""
    noted: float = 0.0


def own(environment: Mapping[str, str]) -> Job | None:
    """The job that we are in; None when we are in none."""
    array, number = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    found = f"{array}_{number}" if array and number else environment.get("SLURM_JOB_ID")
    # In an allocation of salloc's, the launcher runs where salloc does.
    return Job(found, environment.get("SLURMD_NODENAME", "")) if found else None


def kept(folder: Path) -> Job | None:
    """The job of the run in this directory; None where it is none."""
    with suppress(OSError, ValueError):
        told = json.loads((folder / JOB).read_text())
        return Job(told["id"], told["node"], told["noted"])
    return None


def keep(run_dir: RunDir, job: Job) -> None:
    """Have it known to whoever looks at the run."""
    run_dir.write(JOB, job._replace(noted=time.time())._asdict())


def submit(run_dir: RunDir, script: str, numbers: Sequence[int]) -> str:
    """Submit the job of a run that is to be, or of one for each number of an array. Returns its id.

    Raises:
        RequestError: nothing can be written where runs are kept.
        UnavailableError: Slurm does not take it.
    """
    runs = [run_dir.beside(f"-{number}") for number in numbers] or [run_dir]
    try:
        for one in runs:
            one.announce()
        run_dir.path.mkdir(mode=0o700, exist_ok=True)
        (run_dir.path / JOB_SCRIPT).write_text(script)
        id_ = controller.submit(run_dir.path / JOB_SCRIPT)
    except TflaunchError:
        from shutil import rmtree

        for one in (*runs, run_dir):
            rmtree(one.path, ignore_errors=True)
        raise
    for one, id_of_one in zip(runs, [f"{id_}_{number}" for number in numbers] or [id_], strict=True):
        keep(one, Job(id_of_one))
    return id_


def hand_over(run: Run, command: str, *options: str) -> None:
    """Become this command on the node where the run's launcher is, where that is out of reach from here; else do nothing.

    Raises:
        UnavailableError: there is no srun here.
    """
    entry = run.entry
    if entry is None or entry.waits or not entry.node or os.environ.get("SLURM_JOB_ID") == entry.job:
        return
    place = [f"--jobid={entry.job}", f"--nodelist={entry.node}", "--nodes=1", "--ntasks=1"]
    srun = ["srun", *place, "--overlap", "--quiet", "--input=none", "--quit-on-interrupt"]
    try:
        os.execvp("srun", [*srun, controller.ourselves(), command, str(run.folder.absolute()), *options])
    except OSError as error:
        raise UnavailableError(f"cannot start srun: {error.strerror}") from None


def end(folder: Path, entry: Entry, *, now: bool) -> str:
    """Have the run of a job end, and wait until it has. Returns what there is to say.

    Raises:
        UnavailableError: Slurm does not do it, or not in time.
    """
    from launcher.outcome import failure

    if entry.waits:
        controller.ask("scancel", entry.job)
        RunDir(folder, print).write(OUTCOME, {**failure(Interrupted(signal.SIGTERM)), "reason": _NEVER_STARTED})
        return f"{folder.name}: job {entry.job} was waiting, and is cancelled"
    # To the script alone, which is our launcher; what is left of a job that is cancelled, Slurm kills after KillWait.
    controller.ask("scancel", *([] if now else ["--batch", "--signal=TERM"]), entry.job)
    if not controller.wait(entry.job):
        raise UnavailableError(
            f"job {entry.job} goes on", f"scancel {entry.job} ends it at once, with what it has not saved"
        )
    told = _ended(folder)
    how = f" with status {told['exit_status']}: {told['reason']}" if told else ", and has left no word"
    return f"{folder.name} has ended{how}"


def follow_up(config: ClusterConfig, folder: Path, environment: Mapping[str, str]) -> str:
    """Have a run that is over go on in another job, if this one was warned and that was asked for. Returns what there is to say.

    Raises:
        UnavailableError: Slurm does not take it.
    """
    job, ended = own(environment), _ended(folder)
    wanted = config.slurm.requeue or config.slurm.until_done
    if job is None or not wanted or ended.get("exit_status") != 128 + WARNING:
        return ""
    if why := _stands_still(ended, _ended(folder / f"attempt-{_attempts(folder) - 2}")):
        return f"{why}: not queued again"
    if config.slurm.requeue:
        # The last thing we do: Slurm ends what runs of the job.
        controller.ask("scontrol", "requeue", job.id)
        return f"job {job.id} is queued again"
    following = controller.submit(folder / JOB_SCRIPT)
    keep(RunDir(folder, print), Job(following))
    return f"job {following} goes on from here"


def _stands_still(ended: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Why another job would come no further than this one, and the one before; empty where it may."""
    if not before:
        return ""
    if not ended["tasks"] and not before["tasks"]:
        return "the time was over before the workers had started, for the second time"
    if ended["step"] is not None and ended["step"] == before["step"]:
        return f"no new step since the last job, which ended at step {ended['step']:,}"
    return ""


def _ended(folder: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        told: Mapping[str, Any] = json.loads((folder / OUTCOME).read_text())
        return told
    return {}


def _attempts(folder: Path) -> int:
    return sum(1 for _ in folder.glob("attempt-*"))
