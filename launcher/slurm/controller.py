"""Slurm's controller, asked through Slurm's own commands."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import UnavailableError
from launcher.slurm.allocation import expand

if TYPE_CHECKING:
    from collections.abc import Iterable

# The controller of a busy cluster may take its time.
_PATIENCE = 60.0
# For workers to save their work, and Slurm to tidy up.
_LONG = 300.0
_PAUSE = 0.5
# As in gpu:a100:2(IDX:0-1).
_GPUS = re.compile(r"\bgpu:(?:[^:,()]+:)?(\d+)")


def addresses(nodes: Iterable[str]) -> dict[str, str]:
    """Where Slurm itself reaches each node (NodeAddr): its name, unless whoever runs the cluster knows better.

    Raises:
        UnavailableError: the controller does not say.
    """
    said = ask("scontrol", "--oneliner", "show", "node", ",".join(nodes))
    return dict(re.findall(r"^NodeName=(\S+).*? NodeAddr=(\S+)", said, re.MULTILINE))


def gpus(job: str) -> dict[str, int]:
    """How many a job has on each node where it has any.

    Raises:
        UnavailableError: the controller does not say.
    """
    said = ask("scontrol", "--details", "--oneliner", "show", "job", job)
    groups = re.findall(r" Nodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=(\S*)", said)
    counts = {node: sum(map(int, _GPUS.findall(gres))) for names, gres in groups for node in expand(names)}
    return {node: count for node, count in counts.items() if count}


def submit(script: Path) -> str:
    """Submit a job from here. Returns its id.

    Raises:
        UnavailableError: Slurm does not take it; in its words.
    """
    return ask("sbatch", "--parsable", str(script)).strip().partition(";")[0]


def ourselves() -> str:
    """Where this tflaunch is, for a job to start it there, too."""
    beside = Path(sys.executable).with_name("tflaunch")
    return str(beside if beside.exists() else Path(sys.argv[0]).absolute())


def wait(job: str) -> bool:
    """Wait until a job has left the queue; whether it has, before we lose patience."""
    until = time.monotonic() + _LONG
    while time.monotonic() < until:
        try:
            if not ask("squeue", "--noheader", f"--jobs={job}").strip():
                return True
        except UnavailableError as error:
            if "Invalid job id" in str(error):  # it is long gone
                return True
        time.sleep(_PAUSE)
    return False


def ask(*command: str) -> str:
    """What one of Slurm's commands prints.

    Raises:
        UnavailableError: it is not there, or fails.
    """
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except FileNotFoundError:
        raise UnavailableError(
            f"Slurm's {command[0]} is not on PATH", "is this a machine of the cluster? A module may have to be loaded"
        ) from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"Slurm's {command[0]} said nothing for {_PATIENCE:g} s", "is slurmctld up?") from None
    if done.returncode:
        raise UnavailableError(f"{' '.join(command[:3])}: {_last(done.stderr) or f'status {done.returncode}'}")
    return done.stdout


def _last(text: str) -> str:
    """Slurm says the reason last, after ``name: error:``."""
    lines = text.strip().splitlines()
    return re.sub(r"^\w+: (error: )?", "", lines[-1]) if lines else ""
