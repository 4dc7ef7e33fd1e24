"""Real training on real hosts, and what can happen to hosts and cables: in start-up, while it trains, while it saves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.chaos import remains
from tests.hosts import project
from tests.hosts.project import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.acceptance.conftest import Started
    from tests.hosts.conftest import Field
    from tests.hosts.project import Phase

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(240)]


@dataclass
class Training:
    """A training on two hosts, with checkpoints in a folder that both see, as on a shared file system.

    Attributes:
        notes: where its workers say which phase they have come to, and wait until it is over.
    """

    hosts: Field
    run: Started
    notes: Path

    @classmethod
    def start(cls, hosts: Field, *phases: Phase, **settings: object) -> Training:
        """Begin; it waits in these phases."""
        notes = hosts.bed.folder / "notes"
        notes.mkdir()
        for phase in {*PHASES} - {*phases}:
            (notes / f"{phase}.over").touch()
        project.make(hosts.tflaunch.cwd)
        cluster = hosts.cluster(
            **{"sync": True, "cwd": None, "lease": 20, "env": {"NOTES": str(notes)}, **settings},
            checkpoint_dir=str(hosts.bed.folder / "shared"),
        )
        return cls(hosts, hosts.tflaunch.start("train", cluster, *project.FLAGS), notes)

    def come_to(self, phase: Phase) -> None:
        """Wait until all who wait in it are there."""
        all_of_them = len(self.hosts.bed.hosts) if phase == "start-up" else 1
        here = self.notes.glob
        self.until(lambda: len([*here(f"{phase}.worker*")]) == all_of_them, f"{phase} does not come")
        if phase != "start-up":
            self.until(lambda: self.has_saved(1), "nothing is saved")

    def pass_by(self, phase: Phase) -> None:
        """Let whoever waits in it go on; nobody waits in it again."""
        (self.notes / f"{phase}.over").touch()

    def until(self, done: Callable[[], bool], complaint: str) -> None:
        """Wait for it, through attempts that fail."""
        self.hosts.bed.until(done, complaint, within=90)

    def heard_of(self, event: str, times: int = 1) -> bool:
        """Whether this has happened so often."""
        return (self.run_dir / "events.jsonl").read_text().count(f'"event": "{event}"') >= times

    @property
    def run_dir(self) -> Path:
        return self.hosts.tflaunch.cwd / "runs/latest"

    @property
    def checkpoints(self) -> Path:
        return self.hosts.bed.folder / "shared"

    def has_saved(self, times: int) -> bool:
        """Whether so many checkpoints have got their names."""
        return len([*self.checkpoints.glob("ckpt-*")]) >= times

    def end(self) -> tuple[int, str]:
        """Wait for it, and see that every line of every worker has come once, and in order."""
        status, err = self.run.end(within=150)
        for log in self.run_dir.glob("attempt-*/worker-*.log"):
            steps = self.steps(log)
            assert steps == list(range(min(steps, default=0), max(steps, default=-1) + 1)), log
        return status, err

    @property
    def begun_at(self) -> list[int]:
        """The first step of each attempt that has made one."""
        made = [self.steps(log) for log in sorted(self.run_dir.glob("attempt-*/worker-0.log"))]
        return [steps[0] for steps in made if steps]

    def assert_well(self, calm: Path) -> str:
        """It has come to its end, with the weights of a training to which nothing has happened; returns what it said."""
        status, err = self.end()
        assert status == 0, err
        project.assert_trained(self.checkpoints, calm / "checkpoints/digits")
        last = max(self.run_dir.glob("attempt-*"))
        assert all(self.steps(log)[-1] == project.STEPS - 1 for log in last.glob("worker-*.log"))
        return err

    def steps(self, log: Path) -> list[int]:
        return [int(number) for number in re.findall(r"^before step (\d+)$", log.read_text(), re.MULTILINE)]


def test_a_host_crashes_and_comes_back(hosts: Field, calm: Path) -> None:
    """The second one, and while a checkpoint is written, the one that writes it."""
    training = Training.start(hosts, *PHASES, max_restarts=3)
    first, second = hosts.bed.hosts
    for phase, host in zip(PHASES, (second, second, first), strict=True):
        training.come_to(phase)
        host.crash()
        training.pass_by(phase)
        host.start()
    err = training.assert_well(calm)
    assert training.begun_at == [0, 20, 20]
    assert err.count("the agent on 10.77.0.2 was lost: its host answers, but the agent is gone") == 2
    assert err.count("the agent on 10.77.0.1 was lost: its host answers, but the agent is gone") == 1


def test_the_chiefs_host_crashes_for_good(hosts: Field, calm: Path) -> None:
    training = Training.start(hosts, "training", max_restarts=3, min_workers=1, lease=5)
    lost = hosts.bed.hosts[0]
    training.come_to("training")
    lost.crash()
    training.pass_by("training")
    assert f"without {lost.address}" in training.assert_well(calm)
    assert training.begun_at == [0, 20]
    lost.start()


def test_a_cable_is_out_for_a_while(hosts: Field, calm: Path) -> None:
    """TensorFlow may give its peer up; the agents are still there, and the next attempt finds them so."""
    training = Training.start(hosts, *PHASES, max_restarts=3, warm=True)
    second = hosts.bed.hosts[1]
    for times, phase in enumerate(PHASES, 1):
        training.come_to(phase)
        second.unplug()
        training.pass_by(phase)
        training.until(partial(training.heard_of, "LinkDown", times), "nobody has noticed")
        second.plug()
    err = training.assert_well(calm)
    assert err.count("no connection to 10.77.0.2 (not heard of for 10 s)") == err.count("10.77.0.2 is back") == 3


PARTED = "worker 0 on 10.77.0.1 and worker 1 on 10.77.0.2 could not reach each other"


def test_two_hosts_cannot_talk_to_each_other_from_the_start(hosts: Field) -> None:
    # Before its start a cluster waits for 100 s without a word (TensorFlow 2.21); that both listen, all can see.
    training = Training.start(hosts, "start-up", timeout=30)
    training.come_to("start-up")
    hosts.bed.part(*hosts.bed.hosts)
    training.pass_by("start-up")
    status, err = training.end()
    assert status == 124, err
    # Who does not reach whom is told as well, unless TensorFlow pauses between two attempts just then.
    assert "the run's deadline of 30 s passed" in err
    assert "_build_multi_worker (worker/strategy.py:" in err


def test_two_hosts_cannot_talk_to_each_other(hosts: Field) -> None:
    """The first time the run goes on; the second time it is at its end."""
    training = Training.start(hosts, *PHASES, max_restarts=1, warm=True)
    training.pass_by("start-up")
    training.come_to("training")
    hosts.bed.part(*hosts.bed.hosts)
    training.pass_by("training")
    training.until((training.run_dir / "attempt-1").exists, "it goes on as it is")
    hosts.bed.rejoin()
    training.come_to("checkpoint")
    hosts.bed.part(*hosts.bed.hosts)
    training.pass_by("checkpoint")
    status, err = training.end()
    assert status == 69, err
    assert err.count(PARTED) == 2
    assert training.begun_at == [0, 20]
    remains.assert_whole(training.checkpoints)


@pytest.mark.parametrize("kind", ["lossy", "slow"])
def test_a_bad_line(hosts: Field, calm: Path, kind: str) -> None:
    """While the cluster forms, and from a step to a checkpoint. It takes its time, or another attempt."""
    second = hosts.bed.hosts[1]
    bad = partial(hosts.bed.losing, second, 30) if kind == "lossy" else partial(hosts.bed.slowed, second, "4mbit")
    training = Training.start(hosts, *PHASES, max_restarts=5, warm=True)
    training.come_to("start-up")
    with bad():
        training.pass_by("start-up")
        training.run.until("before step 0")
    training.come_to("training")
    with bad():
        training.pass_by("training")
        training.pass_by("checkpoint")
        failed = training.run_dir / f"attempt-{len([*training.run_dir.glob('attempt-*')])}"
        training.until(lambda: failed.exists() or training.has_saved(2), "no checkpoint comes")
    training.assert_well(calm)
