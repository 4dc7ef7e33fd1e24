"""From the command until workers on other hosts have built the strategy together."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks import remote
from tests.benchmarks.aims import AtMost
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.remote import SSH_LOOP, TFLAUNCH_SSH
from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from tests.benchmarks.remote import Hosts
    from tests.benchmarks.trial import Trial

_HOSTS = 2
# These find a connection to each host that is open already.
_OPEN = tuple(replace(one, name=f"{one.name}, open connections") for one in (SSH_LOOP, TFLAUNCH_SSH))


def cases(*, large: bool) -> list[Case]:
    """2 and 4 workers."""
    del large
    return [_case(2), _case(4)]


def _case(count: int) -> Case:
    aim = AtMost(0.5, over=SSH_LOOP) if count == 2 else AtMost(1, times=SSH_LOOP)
    return Case(
        name=f"hosts-{count}",
        title=f"{count} workers on {_HOSTS} hosts build a MultiWorkerMirroredStrategy",
        metrics=(
            Metric("until all have built it", "s", aims=(aim,)),
            Metric("until all have built it, the first time on these hosts", "s"),
        ),
        rounds=5,
        reference=SSH_LOOP,
        launchers=(SSH_LOOP, TFLAUNCH_SSH, *_OPEN),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float, float]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    with remote.hosts(_HOSTS) as hosts:
        if trial.launcher in _OPEN:
            hosts.keep_connections()
        first = _until_built(hosts, trial, count)
        return _until_built(hosts, trial, count), first


def _until_built(hosts: Hosts, trial: Trial, count: int) -> float:
    fifo = hosts.shared / "register"
    if not fifo.exists():
        os.mkfifo(fifo)
    # For writing too: so the open does not wait for a writer, and reading never finds the end.
    register = os.open(fifo, os.O_RDWR)
    try:
        with hosts.start(trial, count, "strategy.py", str(fifo)) as run:
            run.registered(register, count)
            return time.monotonic() - run.started
    finally:
        os.close(register)
