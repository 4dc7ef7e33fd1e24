"""Real training on real hosts, and what can happen to hosts and cables: in start-up, while it trains, while it saves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Started
    from tests.hosts.conftest import Field

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.timeout(240)


@dataclass
class Training:
    """A training on two hosts, with checkpoints in a folder that both see, as on a shared file system."""

    hosts: Field
    run: Started

    @classmethod
    def start(cls, hosts: Field, phase: str, **settings: object) -> Training:
        """Begin, and come to a phase. From its first step on a training saves all the time."""
        flags = ("--epochs", "40", "--save-every", "1 steps", "--checkpoint-dir", f"{hosts.bed.folder}/shared")
        run = hosts.tflaunch.start("train", hosts.cluster(lease=20, **settings), "digits", *flags)
        run.until({"start-up": "worker 0 of 2", "training": "epoch"}[phase])
        return cls(hosts, run)

    def end(self) -> tuple[int, str]:
        """Wait for it, and see that it has kept every line that was shown."""
        status, err = self.run.end(within=150)
        kept = "".join(path.read_text() for path in sorted(self._attempts()))
        shown = [match[1] for line in self.run.seen if (match := re.match(r"worker \d \| (epoch .*)", line))]
        assert all(line in kept for line in shown)
        return status, err

    def _attempts(self) -> list[Path]:
        return list((self.hosts.tflaunch.cwd / "runs/latest").glob("attempt-*/worker-*.log"))

    @property
    def well(self) -> bool:
        """It has come to its end, with what it is to have learnt."""
        accuracy = next((line for line in reversed(self.run.seen) if "test accuracy" in line), "")
        return float((re.findall(r"([\d.]+)%", accuracy) or ["0"])[0]) > 95


PHASES = ("start-up", "training")


@pytest.mark.parametrize("phase", PHASES)
def test_a_host_crashes_and_comes_back(hosts: Field, phase: str) -> None:
    training = Training.start(hosts, phase, max_restarts=3)
    hosts.bed.hosts[1].crash()
    hosts.bed.hosts[1].start()
    status, err = training.end()
    assert status == 0, err
    assert "10.77.0.2" in err
    assert training.well


def test_the_chiefs_host_crashes_for_good(hosts: Field) -> None:
    training = Training.start(hosts, "training", max_restarts=3, min_workers=1)
    lost = hosts.bed.hosts[0]
    lost.crash()
    status, err = training.end()
    lost.start()
    assert status == 0, err
    assert f"without {lost.address}" in err
    assert training.well


@pytest.mark.parametrize("phase", PHASES)
def test_two_hosts_cannot_talk_to_each_other(hosts: Field, phase: str) -> None:
    # Before its start a cluster waits for 100 s without a word (TensorFlow 2.21); that both listen, all can see.
    training = Training.start(hosts, phase, timeout=30)
    hosts.bed.part(*hosts.bed.hosts)
    status, err = training.end()
    assert status in {69, 124}, err
    if phase != "start-up":
        assert "10.77.0.1" in err
        assert "10.77.0.2" in err
    hosts.bed.rejoin()


def test_a_cable_is_out_for_a_while(hosts: Field) -> None:
    """TensorFlow gives its peer up; the agents are still there, and the next attempt finds them so."""
    training = Training.start(hosts, "training", max_restarts=3)
    second = hosts.bed.hosts[1]
    second.unplug()
    events = hosts.tflaunch.cwd / "runs/latest/events.jsonl"
    hosts.bed.until(lambda: '"event": "LinkDown"' in events.read_text(), "nobody has noticed")
    second.plug()
    status, err = training.end()
    assert status == 0, err
    assert "10.77.0.2 is back" in err
    assert training.well
