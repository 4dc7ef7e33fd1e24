"""Slurm's controller, asked through Slurm's own commands."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

# The controller of a busy cluster may take its time.
_PATIENCE = 60.0


def addresses(nodes: Iterable[str]) -> dict[str, str]:
    """Where Slurm itself reaches each node (NodeAddr): its name, unless whoever runs the cluster knows better.

    Raises:
        UnavailableError: the controller does not say.
    """
    said = ask("scontrol", "--oneliner", "show", "node", ",".join(nodes))
    return dict(re.findall(r"^NodeName=(\S+).*? NodeAddr=(\S+)", said, re.MULTILINE))


def ask(*command: str) -> str:
    """What one of Slurm's commands prints.

    Raises:
        UnavailableError: it is not there, or fails.
    """
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
