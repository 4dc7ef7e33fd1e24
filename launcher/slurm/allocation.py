"""What Slurm has given to a job, as its environment says it. Pure.

Sources: salloc(1) and sbatch(1), output environment variables; scontrol(1), host lists.
"""

from __future__ import annotations

import re
from itertools import chain, product
from typing import TYPE_CHECKING, NamedTuple

from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A comma outside of brackets parts two names; a name may have several brackets, as in rack[1-2]n[1-16].
_NAMES = re.compile(r"(?:[^,\[\]]|\[[^\]]*\])+")
_PARTS = re.compile(r"\[([^\]]*)\]|([^\[\]]+)")
_COUNTS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


class Allocation(NamedTuple):
    """The nodes of a job.

    Attributes:
        job: its id.
        tasks: node, in the order in which Slurm has them -> tasks on it.
    """

    job: str
    tasks: Mapping[str, int]


def read(environment: Mapping[str, str]) -> Allocation | None:
    """The allocation that these variables tell of; None where there is none.

    Raises:
        UnavailableError: they do not fit together.
    """
    job, names = environment.get("SLURM_JOB_ID"), environment.get("SLURM_JOB_NODELIST")
    if not job or not names:
        return None
    nodes = list(expand(names))
    one_each = f"1(x{len(nodes)})"
    # Of a job that has not said how many, --exclusive tells how many there is room for (22.05); srun starts one on each node.
    asked = "SLURM_NTASKS" in environment
    counts = list(repeated(environment.get("SLURM_TASKS_PER_NODE", one_each) if asked else one_each))
    if len(counts) != len(nodes):
        told = f"SLURM_JOB_NODELIST has {len(nodes)} nodes, but SLURM_TASKS_PER_NODE {len(counts)}"
        raise UnavailableError(f"job {job}: {told}", "start tflaunch in the job itself, not in one of its steps")
    return Allocation(job, dict(zip(nodes, counts, strict=True)))


def expand(names: str) -> Iterator[str]:
    """The nodes of a host list, in its order: ``n[08-10],m1`` is n08, n09, n10 and m1."""
    for name in _NAMES.findall(names):
        parts = [_choices(ranges) if ranges else (text,) for ranges, text in _PARTS.findall(name)]
        yield from map("".join, product(*parts))


def _choices(ranges: str) -> tuple[str, ...]:
    return tuple(chain.from_iterable(map(_range, ranges.split(","))))


def _range(text: str) -> list[str]:
    first, dash, last = text.partition("-")
    if not dash:
        return [text]
    # Zeros in front are part of the names.
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def repeated(counts: str) -> Iterator[int]:
    """``4,1(x2)`` is 4, 1 and 1."""
    for count, times in _COUNTS.findall(counts):
        yield from [int(count)] * int(times or 1)
