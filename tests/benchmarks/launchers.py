"""The launchers that are compared, and how each is told to run N copies of a program.

Every one is told what a cluster needs: to run the copies at once, to say whose line is whose as the lines come, and to
end the others when one fails. The shell loop can do neither of the last two: it is the floor, not a peer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

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
        program: what is looked for beside this Python, then on PATH.
        arguments: what to tell it, for a job.
        role: what it is to the others.
    """

    name: str
    program: str
    arguments: Callable[[Job], list[str]]
    role: Role = "peer"

    @property
    def path(self) -> str | None:
        """Where the program is; None when it is not installed."""
        folders = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]  # noqa: PTH120 - PATH is text
        return shutil.which(self.program, path=os.pathsep.join(folders))

    def argv(self, job: Job) -> list[str]:
        """The whole command line for a job; the program must be installed."""
        return [self.path or self.program, *self.arguments(job)]

    @property
    def version(self) -> str:
        """What the program says of itself, in a line; for a shell that does not say, the name of its binary."""
        return _version(self.path or self.program)


@cache
def _version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = said.stdout.splitlines()
    return lines[0].strip() if lines and said.returncode == 0 else Path(path).resolve().name


def _shell_loop(job: Job) -> list[str]:
    numbers = " ".join(str(number) for number in range(job.copies))
    return ["-c", f'for i in {numbers}; do "$@" & done; wait', "sh", *job.command]


def _tflaunch(job: Job) -> list[str]:
    return ["run", "-n", str(job.copies), *job.script_line]


def _mpirun(job: Job) -> list[str]:
    return ["--allow-run-as-root", "--oversubscribe", "--tag-output", "-n", str(job.copies), *job.command]


def _parallel(job: Job) -> list[str]:
    options = ["--will-cite", "--tag", "--line-buffer", "--halt", "now,fail=1", "--jobs", str(job.copies)]
    return [*options, *job.command, ":::", *(str(number) for number in range(job.copies))]


def _honcho(job: Job) -> list[str]:
    import shlex

    procfile = job.folder / "Procfile"
    line = shlex.join(job.command)
    procfile.write_text("".join(f"worker{number}: {line}\n" for number in range(job.copies)))
    return ["-f", str(procfile), "start"]


SHELL = Launcher("shell loop", "sh", _shell_loop, role="floor")
TFLAUNCH = Launcher("tflaunch", "tflaunch", _tflaunch, role="ours")
MPIRUN = Launcher("Open MPI", "mpirun", _mpirun)
PARALLEL = Launcher("GNU parallel", "parallel", _parallel)
HONCHO = Launcher("honcho", "honcho", _honcho)
