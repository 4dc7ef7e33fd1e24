"""A job as sbatch takes it: a value that shows itself as the script that is submitted. Pure. Source: sbatch(1)."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from launcher.config import ClusterConfig

_WIDEST = 100

# Options of sbatch that we give ourselves, and where to say what they are to be.
OURS = {
    "-N": "nodes", "--nodes": "nodes", "-n": "workers", "--ntasks": "workers", "--ntasks-per-node": "workers",
    "-p": "partition", "--partition": "partition", "-A": "account", "--account": "account", "-q": "qos", "--qos": "qos",
    "-t": "time", "--time": "time", "-c": "cpus_per_task", "--cpus-per-task": "cpus_per_task",
    "--gpus-per-node": "gpus_per_node", "--gpus-per-task": "gpus_per_task", "--mem": "mem",
    "-C": "constraint", "--constraint": "constraint", "-a": "array", "--array": "array",
    "-d": "dependency", "--dependency": "dependency", "--signal": "warning",
    "--requeue": "requeue", "--no-requeue": "requeue", "-J": "name", "--job-name": "name",
    "-o": "run_dir", "--output": "run_dir", "-k": "min_workers", "--no-kill": "min_workers",
}  # fmt: skip


class Script(NamedTuple):
    """What is submitted.

    Attributes:
        directives: options of sbatch.
        command: what the job becomes.
        reason: what stands above the command, in whole sentences.
    """

    directives: tuple[str, ...]
    command: tuple[str, ...]
    reason: tuple[str, ...]

    def __str__(self) -> str:
        head = ["#!/bin/bash", *(f"#SBATCH {shlex.quote(one)}" for one in self.directives), ""]
        return "\n".join([*head, *(f"# {line}" for line in self.reason), *_folded(self.command), ""])


def make(config: ClusterConfig, command: Sequence[str], folder: str) -> Script:
    """The job of a run.

    Args:
        command: the argument vector of the launcher.
        folder: the directory of the run, from where the job is submitted.
    """
    spec = config.slurm
    reason = [
        "tflaunch is the job's own process: the warning comes to it, and all workers save one checkpoint together,",
        f"{spec.warning} s before the time is over.",
    ]
    if spec.requeue:
        reason.append("It then has the job queued again, and goes on in the same directory.")
    if spec.until_done:
        reason.append("It then submits this script again, and goes on in the same directory.")
    return Script(tuple(_directives(config, folder)), ("exec", *command), tuple(reason))


def workers(config: ClusterConfig) -> int:
    """Workers in all: what was asked for, else one a node."""
    return config.workers if config.origins.get("workers", "default") != "default" else config.slurm.nodes or 1


def numbers(array: str | None) -> list[int]:
    """Those of an array such as ``0-9%2``, ``1,3`` or ``0-15:4``; none where there is no array."""
    found: list[int] = []
    for part in (array or "").partition("%")[0].split(",") if array else []:
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def _directives(config: ClusterConfig, folder: str) -> Iterator[str]:
    spec = config.slurm
    yield f"--job-name={config.name}"
    yield from _size(spec.nodes, workers(config))
    for option in ("partition", "account", "qos", "time", "cpus_per_task", "gpus_per_node", "mem"):
        yield from _given(option, getattr(spec, option))
    if spec.gpus_per_node is None:
        yield from _given("gpus_per_task", config.gpus_per_task)
    for option in ("constraint", "array", "dependency"):
        yield from _given(option, getattr(spec, option))
    # Percent signs are sbatch's own, for numbers of the job.
    yield f"--output={folder.replace('%', '%%')}/job-{'%A_%a' if spec.array else '%j'}.log"
    yield "--open-mode=append"
    yield f"--signal=B:USR1@{spec.warning}"
    yield "--requeue" if spec.requeue else "--no-requeue"
    if config.min_workers is not None:
        yield "--no-kill"
    yield from spec.options


def _size(nodes: int | None, tasks: int) -> Iterator[str]:
    if nodes is not None:
        yield f"--nodes={nodes}"
    if nodes is not None and tasks % nodes == 0:
        yield f"--ntasks-per-node={tasks // nodes}"
    else:
        yield f"--ntasks={tasks}"


def _given(option: str, value: object) -> Iterator[str]:
    if value is not None:
        yield f"--{option.replace('_', '-')}={value}"


def _folded(words: Sequence[str]) -> Iterator[str]:
    """A command in lines of a length that can be read."""
    line = ""
    for word in map(_quoted, words):
        if line and len(line) + len(word) > _WIDEST:
            yield f"{line} \\"
            line = "   "
        line += f" {word}" if line else word
    yield line


def _quoted(word: str) -> str:
    # Only what Slurm itself says of an array is for the shell to fill in.
    before, number, after = word.partition(ARRAY_NUMBER)
    return (
        f"{shlex.quote(before) if before else ''}{number}{shlex.quote(after) if after else ''}"
        if number
        else shlex.quote(word)
    )


ARRAY_NUMBER = "$SLURM_ARRAY_TASK_ID"
