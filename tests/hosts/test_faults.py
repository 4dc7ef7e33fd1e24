"""Real training on real hosts, and what can happen to hosts and cables: in start-up, while it trains, while it saves."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.hosts import project
from tests.hosts.project import PHASES

if TYPE_CHECKING:
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
        project.make(hosts.tflaunch.cwd)
        cluster = hosts.cluster(
            **{"sync": True, "cwd": None, "lease": 20, "env": {"NOTES": str(notes)}, **settings},
            checkpoint_dir=str(hosts.bed.folder / "shared"),
        )
        training = cls(hosts, hosts.tflaunch.start("train", cluster, *project.FLAGS), notes)
        for phase in {*PHASES} - {*phases}:
            training.pass_by(phase)
        return training

    def come_to(self, phase: Phase) -> None:
        """Wait until all who wait in it are there."""
        here = 2 if phase == "start-up" else 1
        self.hosts.bed.until(lambda: len([*self.notes.glob(f"{phase}.worker*")]) == here, f"{phase} does not come")

    def pass_by(self, phase: Phase) -> None:
        """Nobody waits in it any longer."""
        (self.notes / f"{phase}.over").touch()

    def events(self, name: str) -> list[str]:
        text = (self.hosts.tflaunch.cwd / "runs/latest/events.jsonl").read_text()
        return [line for line in text.splitlines() if f'"event": "{name}"' in line]

    def end(self) -> tuple[int, str]:
        """Wait for it, and see that it has kept every line that was shown, and each once."""
        status, err = self.run.end(within=150)
        kept = "".join(path.read_text() for path in sorted(self._attempts()))
        shown = [match[1] for line in self.run.seen if (match := re.match(r"worker \d \| (epoch .*)", line))]
        assert all(line in kept for line in shown)
        return status, err

    def assert_well(self, calm: Path) -> None:
        """It has come to its end, with the weights of a training to which nothing has happened."""
        status, err = self.end()
        print(err)
        assert status == 0, err
        project.assert_trained(self.hosts.bed.folder / "shared", calm / "checkpoints/digits")

    def _attempts(self) -> list[Path]:
        return list((self.hosts.tflaunch.cwd / "runs/latest").glob("attempt-*/worker-*.log"))


def test_a_host_crashes_in_each_phase(hosts: Field, calm: Path) -> None:
    """The second one, and while a checkpoint is written, the one that writes it."""
    training = Training.start(hosts, *PHASES, max_restarts=3)
    first, second = hosts.bed.hosts
    for phase, host in zip(PHASES, (second, second, first), strict=True):
        training.come_to(phase)
        host.crash()
        training.pass_by(phase)
        host.start()
    training.assert_well(calm)


@pytest.mark.parametrize("phase", PHASES)
def test_a_cable_is_out(hosts: Field, calm: Path, phase: Phase) -> None:
    training = Training.start(hosts, phase, max_restarts=3)
    second = hosts.bed.hosts[1]
    training.come_to(phase)
    second.unplug()
    training.pass_by(phase)
    hosts.bed.until(lambda: bool(training.events("LinkDown")), "nobody has noticed")
    second.plug()
    training.assert_well(calm)


@pytest.mark.parametrize("phase", PHASES)
def test_two_hosts_cannot_talk_to_each_other(hosts: Field, phase: Phase) -> None:
    # Before its start a cluster waits for 100 s without a word (TensorFlow 2.21); that both listen, all can see.
    training = Training.start(hosts, phase, timeout=30)
    training.come_to(phase)
    hosts.bed.part(*hosts.bed.hosts)
    training.pass_by(phase)
    status, err = training.end()
    print(status, err)
    hosts.bed.rejoin()
    assert status in {69, 124}, err
    assert "10.77.0.1" in err
    assert "10.77.0.2" in err


@pytest.mark.parametrize("hardship", ["loss", "slow"])
def test_hardship(hosts: Field, calm: Path, hardship: str) -> None:
    training = Training.start(hosts, "start-up", max_restarts=3)
    training.come_to("start-up")
    if hardship == "loss":
        hosts.bed.lose(hosts.bed.hosts[1], 30)
    else:
        hosts.bed.slow(hosts.bed.hosts[1], "4mbit")
    training.pass_by("start-up")
    training.assert_well(calm)
