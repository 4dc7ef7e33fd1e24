"""Jobs as they stand in Slurm's queue, in its words and ours. Source: squeue(1)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from launcher.errors import UnavailableError
from launcher.slurm.controller import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

# So long an answer holds: whoever follows a run looks often, and the controller is everybody's.
_FRESH = 2.0
_FORMAT = "%i|%T|%r|%B|%S"

_REASONS = {
    "Resources": "it waits for nodes to be free",
    "Priority": "others are before it",
    "Dependency": "it waits for the jobs that it depends on",
    "DependencyNeverSatisfied": "a job that it depends on has ended otherwise: it will never start",
    "BeginTime": "it is not to start before its time",
    "JobHeldUser": "it is held: scontrol release lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "PartitionNodeLimit": "its partition does not give so many nodes: it will never start",
    "PartitionTimeLimit": "its partition does not give so much time: it will never start",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is not active",
    "BadConstraints": "no node has what it asks for: it will never start",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "AssocMaxJobsLimit": "its account has as many jobs as it may have",
    "QOSMaxJobsPerUserLimit": "you have as many jobs as its quality of service allows",
    "JobArrayTaskLimit": "as many of its array run as are to run at once",
}


class Entry(NamedTuple):
    """A job in the queue.

    Attributes:
        job: its id.
        state: as Slurm has it, such as PENDING, RUNNING, COMPLETING.
        reason: why it waits, in Slurm's words; None where it does not.
        node: where its script runs; empty while it does not.
        start: when Slurm expects it to start, or it has; N/A where it does not know.
    """

    job: str
    state: str
    reason: str
    node: str
    start: str

    @property
    def waits(self) -> bool:
        """It has not started."""
        return self.state in {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED"}

    @property
    def words(self) -> str:
        """Where it runs, or why it waits, for a person."""
        if not self.waits:
            return f"job {self.job} is {self.state.lower()}{f' on {self.node}' if self.node else ''}"
        known = _REASONS.get(self.reason.partition(",")[0].strip("()"), "")
        when = f"; Slurm expects it to start at {self.start}" if self.start not in {"N/A", ""} else ""
        return f"job {self.job} is {self.state.lower()} ({self.reason}){f': {known}' if known else ''}{when}"


_seen: tuple[float, Mapping[str, Entry]] | None = None


def entries(since: float = 0.0) -> Mapping[str, Entry]:
    """This user's jobs, by id, as they stood after ``since`` (seconds since the epoch); none where Slurm cannot be asked."""
    global _seen  # noqa: PLW0603 - what the controller said holds for the whole process
    now = time.time()
    if _seen is None or now - _seen[0] > _FRESH or _seen[0] < since:
        try:
            _seen = now, parse(ask("squeue", "--noheader", "--array", "--me", f"--format={_FORMAT}"))
        except UnavailableError:
            _seen = now, {}
    return _seen[1]


def parse(text: str) -> dict[str, Entry]:
    """What squeue prints. Pure."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == _FORMAT.count("|"))
    return {
        job: Entry(job, state, reason, "" if node == "n/a" else node, start) for job, state, reason, node, start in rows
    }
