"""Where this process stands in its cluster, and its line to the launcher. Standard library only."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MEMBERS = ("chief", "worker")
JOBS = (*MEMBERS, "ps", "evaluator")


class ContextError(ValueError):
    """TF_CONFIG does not describe a cluster with this process in it; the message is one line."""


@dataclass(frozen=True)
class Context:
    """One process of a cluster.

    Attributes:
        job: ``chief``, ``worker``, ``ps`` or ``evaluator``.
        index: its number within the job, from 0.
        size: how many processes train together, the chief included; parameter servers and evaluators do not count.
        parameter_servers: how many of them the cluster has; a collective strategy works with none.
        rank: its number among those who train together, the chief's being 0.
        is_chief: whether this is the one that writes: the chief, or worker 0 where no job is called so.
    """

    job: str = "worker"
    index: int = 0
    size: int = 1
    parameter_servers: int = 0
    rank: int = 0
    is_chief: bool = True

    @property
    def trains(self) -> bool:
        """Whether this process takes part in the collective; a parameter server or an evaluator never does."""
        return self.job in MEMBERS

    def __str__(self) -> str:
        match self.job:
            case "chief":
                return f"chief of {self.size}"
            case "worker":
                return f"worker {self.index} of {self.size}" + (", the chief" if self.is_chief else "")
            case _:
                return f"{self.job} {self.index}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Context:
        """Read ``TF_CONFIG``. Without it, or without a cluster in it, the process is its own chief and alone.

        Raises:
            ContextError: TF_CONFIG is not JSON, or names no valid place in its cluster.
        """
        config = _parse(environment.get("TF_CONFIG", ""))
        if not config.get("cluster"):
            return cls()
        counts = _count(config["cluster"])
        job, index = _place(config.get("task"), counts)
        lead = "chief" if "chief" in counts else "worker"
        size = sum(counts.get(member, 0) for member in MEMBERS)
        rank = index + (job == "worker" and lead == "chief")
        return cls(job, index, size, counts.get("ps", 0), rank, is_chief=(job, index) == (lead, 0))


def _parse(text: str) -> dict[str, object]:
    if not text.strip():
        return {}
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ContextError(f"TF_CONFIG is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ContextError(f'TF_CONFIG must be a JSON object with "cluster" and "task", not {text.strip()!r:.60}')
    return config


def _count(cluster: object) -> dict[str, int]:
    if not isinstance(cluster, dict):
        raise ContextError('TF_CONFIG: "cluster" must map each job to a list of addresses')
    for job, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses:
            raise ContextError(f'TF_CONFIG: cluster job "{job}" must be a list of at least one address')
    if len(cluster.get("chief", [])) > 1:
        raise ContextError(f"TF_CONFIG: a cluster has one chief, this one names {len(cluster['chief'])}")
    return {job: len(addresses) for job, addresses in cluster.items()}


def _place(task: object, counts: Mapping[str, int]) -> tuple[str, int]:
    match task:
        case {"type": str(job), "index": int(index)} if not isinstance(index, bool):
            pass
        case _:
            raise ContextError('TF_CONFIG: "task" must hold a "type" and a whole number "index"')
    if job not in JOBS:
        raise ContextError(f'TF_CONFIG: task type "{job}" is none of {", ".join(JOBS)}')
    # TensorFlow's own convention leaves the evaluator out of the cluster that it evaluates.
    if job == "evaluator" and job not in counts:
        return job, index
    if not 0 <= index < counts.get(job, 0):
        raise ContextError(
            f'TF_CONFIG: there is no task {job} {index}; "cluster" names {counts.get(job, 0)} of that job'
        )
    return job, index


def report(kind: str, /, **fields: object) -> None:
    """Tell the launcher: ``report("progress", step=120, of=500, loss=0.12)``. Outside a launched cluster, nothing.

    The code that boots a worker owns the descriptor to the launcher and is registered under a private module name.
    """
    if is_launched():
        sys.modules["_tflaunch_boot"].report(kind, **fields)


def is_launched() -> bool:
    """Whether a launcher started this process and hears its reports."""
    return "_tflaunch_boot" in sys.modules
