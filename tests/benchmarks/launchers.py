"""The launchers that are compared, and how each is told to run N copies of a program.

Every one is told what a cluster needs: to run the copies at once, to say whose line is whose as the lines come, and to
end the others when one fails. The shell loop can do neither of the last two: it is the floor, not a peer. Where only log
files are wanted, each is told what is cheapest for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.benchmarks import peers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.peers import Environment

PROGRAMS = Path(__file__).parent / "programs"
# A peer, to be ahead of; one of ours, with the aims; or the floor, which is what there is without a launcher.
Role = Literal["peer", "ours", "floor"]


@dataclass(frozen=True)
class Job:
    """``copies`` of a Python script, started in ``folder``. Launchers may add an argument of their own at the end.

    Attributes:
        hosts: the addresses of those that it is to run on; none for this machine.
        python, programs: the interpreter, and the folder of the scripts, where it runs.
    """

    copies: int
    script: str
    arguments: tuple[str, ...]
    folder: Path
    hosts: tuple[str, ...] = ()
    python: str = sys.executable
    programs: Path = PROGRAMS

    @property
    def script_line(self) -> list[str]:
        """The script and its arguments."""
        return [str(self.programs / self.script), *self.arguments]

    @property
    def command(self) -> list[str]:
        """What to run without a launcher."""
        return [self.python, *self.script_line]


@dataclass(frozen=True)
class Launcher:
    """A program that runs others.

    Attributes:
        name: what the tables call it.
        program: what is looked for in its own environment, then beside this Python, then on PATH.
        arguments: what to tell it, for a job.
        environment: what ``tests.benchmarks.peers`` made for it.
        role: what it is to the others.
    """

    name: str
    program: str
    arguments: Callable[[Job], list[str]]
    environment: Environment | None = None
    role: Role = "peer"

    @property
    def path(self) -> str | None:
        """Where the program is; None when it is not installed."""
        own = [str(self.environment.programs)] if self.environment and self.environment.installed else []
        folders = [*own, str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        return shutil.which(self.program, path=os.pathsep.join(folders))

    def argv(self, job: Job) -> list[str]:
        """The whole command line for a job; the program must be installed."""
        return [self.path or self.program, *self.arguments(job)]

    @property
    def version(self) -> str:
        """What the program says of itself, in a line; for a shell that does not say, the name of its binary."""
        if self.environment and self.environment.installed:
            return self.environment.version
        return _version(self.path or self.program)


@cache
def _version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = said.stdout.splitlines()
    return lines[0].strip() if lines and said.returncode == 0 else Path(path).resolve().name


def _shell_loop(job: Job) -> list[str]:
    numbers = " ".join(str(number) for number in range(job.copies))
    return ["-c", f'for i in {numbers}; do "$@" & done; wait', "sh", *job.command]


def _shell_loop_to_files(job: Job) -> list[str]:
    numbers = " ".join(str(number) for number in range(job.copies))
    return ["-c", f'for i in {numbers}; do "$@" >$i.log 2>&1 & done; wait', "sh", *job.command]


def _tflaunch(job: Job, *options: str) -> list[str]:
    return ["run", "-n", str(job.copies), *options, *job.script_line]


def _mpirun(job: Job, *options: str) -> list[str]:
    # Without the first two it refuses root, and more processes than cores.
    return ["--allow-run-as-root", "--oversubscribe", *options, "-n", str(job.copies), *job.command]


def _parallel(job: Job, *options: str) -> list[str]:
    always = ["--will-cite", *options, "--halt", "now,fail=1", "--jobs", str(job.copies)]
    return [*always, *job.command, ":::", *(str(number) for number in range(job.copies))]


def _torchrun(job: Job, *options: str) -> list[str]:
    return ["--standalone", *options, "--nproc-per-node", str(job.copies), "--no-python", *job.command]


def _accelerate(job: Job) -> list[str]:
    # With --cpu it starts a single process, however many are asked for; --multi_gpu asks for no GPU, but for two processes.
    kind = "--cpu" if job.copies == 1 else "--multi_gpu"
    unsaid = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return ["launch", kind, *unsaid, "--num_processes", str(job.copies), "--no_python", *job.command]


def _honcho(job: Job) -> list[str]:
    import shlex

    procfile = job.folder / "Procfile"
    line = shlex.join(job.command)
    procfile.write_text("".join(f"worker{number}: {line}\n" for number in range(job.copies)))
    return ["-f", str(procfile), "start"]


SHELL = Launcher("shell loop", "sh", _shell_loop, role="floor")
TFLAUNCH = Launcher("tflaunch", "tflaunch", _tflaunch, role="ours")
COLD = replace(TFLAUNCH, name="tflaunch --cold", arguments=lambda job: _tflaunch(job, "--cold"))
MPIRUN = Launcher("Open MPI", "mpirun", lambda job: _mpirun(job, "--tag-output"))
PARALLEL = Launcher("GNU parallel", "parallel", lambda job: _parallel(job, "--tag", "--line-buffer"))
HONCHO = Launcher("honcho", "honcho", _honcho, environment=peers.HONCHO)
# Its lines come as the processes write them, and bear no marks.
TORCHRUN = Launcher("torchrun", "torchrun", _torchrun, environment=peers.TORCHRUN)
ACCELERATE = Launcher("accelerate", "accelerate", _accelerate, environment=peers.ACCELERATE)

# It marks lines that it reads from log files, so it writes those too.
TORCHRUN_TEE = replace(
    TORCHRUN, name="torchrun --tee", arguments=lambda job: _torchrun(job, "--tee", "3", "--log-dir", "logs")
)

# Log files alone, in the folder of the job.
SHELL_FILES = replace(SHELL, name="shell loop, files", arguments=_shell_loop_to_files)
TFLAUNCH_FILES = replace(TFLAUNCH, name="tflaunch, files", arguments=lambda job: _tflaunch(job, "--output", "none"))
MPIRUN_FILES = replace(
    MPIRUN, name="Open MPI, files", arguments=lambda job: _mpirun(job, "--output-filename", "logs:nocopy")
)
PARALLEL_FILES = replace(
    PARALLEL, name="GNU parallel, files", arguments=lambda job: _parallel(job, "--results", "logs")
)
TORCHRUN_FILES = replace(
    TORCHRUN, name="torchrun, files", arguments=lambda job: _torchrun(job, "--redirects", "3", "--log-dir", "logs")
)
