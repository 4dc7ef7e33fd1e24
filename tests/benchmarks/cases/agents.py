"""What reaching many hosts costs: a Python process that does nothing on each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import remote
from tests.benchmarks.aims import AtMost
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.remote import PARALLEL_SSH, PDSH, TFLAUNCH_SSH, XARGS_SSH

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial


def cases(*, large: bool) -> list[Case]:
    """8 hosts; 64 as well when ``large``."""
    return [_case(count) for count in ((8, 64) if large else (8,))]


def _case(count: int) -> Case:
    return Case(
        name=f"agents-{count}",
        title=f"A Python process that does nothing on each of {count} hosts",
        metrics=(
            Metric("until the launcher has ended", "s", aims=(AtMost(2, times=PDSH),)),
            Metric("until the launcher has ended, the first time on these hosts", "s"),
        ),
        rounds=5,
        reference=PDSH,
        launchers=(PDSH, TFLAUNCH_SSH, PARALLEL_SSH, XARGS_SSH),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float, float]:
    with remote.hosts(count) as hosts:
        first, again = (_until_ended(hosts, trial, count) for _ in range(2))
    return again, first


def _until_ended(hosts: remote.Hosts, trial: Trial, count: int) -> float:
    with hosts.start(trial, count, "noop.py") as run:
        return run.finish() - run.started
