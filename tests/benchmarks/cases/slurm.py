"""What a run costs in an allocation of Slurm's, beside srun alone."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.aims import Ahead
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import Job, Launcher
from tests.benchmarks.trial import Failed, Run
from tests.slurm import testbed
from tests.slurm.testbed import Cluster

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial

_MANY, _FEW = 16, 2
_FIRST_PORT = 2222


def cases(*, large: bool) -> list[Case]:
    """16 nodes that do nothing, and 4 workers on 2 nodes."""
    del large
    metric = "until the allocation is over"
    launchers = (SRUN, TFLAUNCH_SLURM)
    title = f"A Python process that does nothing on each of {_MANY} nodes of Slurm's"
    nothing = Case("slurm-noop", title, (Metric(metric, "s"),), 5, SRUN, launchers, _until_over)
    joined = Case(
        "slurm-join",
        f"4 workers on {_FEW} nodes of Slurm's build a MultiWorkerMirroredStrategy",
        (Metric("until all have built it", "s", aims=(Ahead(),)),),
        5,
        SRUN,
        launchers,
        partial(_until_built, 4),
    )
    return [nothing, joined]


def _allocation(job: Job) -> list[str]:
    return ["--quiet", f"--nodes={len(job.hosts)}", f"--ntasks={job.copies}"]


def _srun(job: Job) -> list[str]:
    return [*_allocation(job), "srun", "--label", *_placed(job)]


def _placed(job: Job) -> list[str]:
    """The command, with the place of each worker before it where it needs one, as somebody writes that by hand."""
    if job.script == "noop.py":
        return job.command
    each = [host for host in job.hosts for _ in range(job.copies // len(job.hosts))]
    places = ", ".join(f'\\"{host}:{_FIRST_PORT + number}\\"' for number, host in enumerate(each))
    task = '\\"task\\": {\\"type\\": \\"worker\\", \\"index\\": $SLURM_PROCID}'
    cluster = f'\\"cluster\\": {{\\"worker\\": [{places}]}}'
    return ["sh", "-c", f'export TF_CONFIG="{{{cluster}, {task}}}"; exec {shlex.join(job.command)}']


def _tflaunch(job: Job) -> list[str]:
    tflaunch = str(Path(sys.executable).with_name("tflaunch"))
    return [*_allocation(job), tflaunch, "run", "--engine=slurm", *job.script_line]


SRUN = Launcher("srun", "salloc", _srun)
TFLAUNCH_SLURM = Launcher("tflaunch on Slurm", "salloc", _tflaunch, role="ours")


def _start(cluster: Cluster, trial: Trial, copies: int, script: str, *arguments: str) -> Run:
    hosts = tuple(host.address for host in cluster.hosts)
    # What every node sees.
    folder = cluster.folder / "work"
    folder.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).parents[1] / "programs" / script, folder)
    job = Job(copies, script, arguments, folder, hosts, sys.executable, folder)
    argv = cluster.on_controller(trial.launcher.argv(job))
    return Run(argv, trial.folder, capture=False, env=cluster.environment)


def _cluster(count: int) -> Cluster:
    if why := testbed.missing():
        raise Failed(f"has no Slurm: {why}")
    return Cluster(count)


def _until_over(trial: Trial) -> tuple[float]:
    with _cluster(_MANY) as cluster:
        # The first job of a cluster waits for what its daemons do at first.
        with _start(cluster, trial, _MANY, "noop.py") as run:
            run.finish()
        with _start(cluster, trial, _MANY, "noop.py") as run:
            return (run.finish() - run.started,)


def _until_built(copies: int, trial: Trial) -> tuple[float]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    with _cluster(_FEW) as cluster:
        fifo = cluster.folder / "register"
        os.mkfifo(fifo)
        # For writing too: so the open does not wait for a writer, and reading never finds the end.
        register = os.open(fifo, os.O_RDWR)
        try:
            for _ in range(2):
                with _start(cluster, trial, copies, "strategy.py", str(fifo)) as run:
                    run.registered(register, copies)
                    built = time.monotonic() - run.started
            return (built,)
        finally:
            os.close(register)
