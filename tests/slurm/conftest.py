from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.acceptance.conftest import Command
from tests.hosts.conftest import calm  # noqa: F401 - a fixture of theirs
from tests.slurm import testbed
from tests.slurm.testbed import Cluster

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.conftest import Ended, Started


@dataclass
class Site:
    """A Slurm cluster, and the command on the machine that its users log in to."""

    cluster: Cluster
    folder: Path

    def tflaunch(self, *wrapper: str) -> Command:
        """The command on the login node, or behind one of Slurm's."""
        return Command(self.folder, (*self.cluster.on_controller([]), *wrapper), env=self.cluster.environment)

    def run(self, *command: str, salloc: tuple[str, ...], **settings: Any) -> Ended:
        """Run a command in an allocation of its own."""
        return self.tflaunch("salloc", *salloc)("run", self.request(**settings), "--", *command)

    def start(self, *command: str, salloc: tuple[str, ...], **settings: Any) -> Started:
        return self.tflaunch("salloc", *salloc).start("run", self.request(**settings), "--", *command)

    def request(self, **settings: Any) -> str:
        """Write a cluster.json."""
        given = {"engine": "slurm", "backoff": 0.1, **settings}
        (self.folder / "cluster.json").write_text(json.dumps(given))
        return "cluster.json"

    def tell(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the only process of this name on the login node."""
        (found,) = [process for process in self.cluster.at_login() if process.name() == name]
        found.send_signal(number)

    def over(self, job: str, patience: float = 60.0) -> None:
        """Wait until a job has left the queue, and if it is an array, all of its jobs have: each has a number of its own, too."""
        self.cluster.until(
            lambda: job not in self.cluster.ask("squeue", "--noheader", "--format=%A %F").split(),
            f"{job} stays",
            patience,
        )

    def script(self, text: str) -> str:
        """Write a script where tflaunch is run."""
        (self.folder / "script.py").write_text(text)
        return "script.py"

    def program(self, name: str, text: str) -> str:
        """Write a program of the shell's; returns its path."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def running(self) -> str:
        """The only job that there is."""
        (found,) = self.cluster.ask("squeue", "--noheader", "--format=%A").split()
        return found

    def kill_agent(self, number: int) -> None:
        """Kill both processes of the agent on a node, at once."""
        for process in self.cluster.hosts[number - 1].processes():
            with suppress(psutil.Error):
                if process.name().startswith("python"):
                    process.kill()

    def happened(self, event: str, times: int = 1) -> bool:
        """Whether the newest run has had this so often."""
        log = self.folder / "runs/latest/events.jsonl"
        return log.exists() and log.read_text().count(f'"event": "{event}"') >= times

    @staticmethod
    def job(folder: Path) -> str:
        """The job that a run is by now."""
        return str(json.loads((folder / "job.json").read_text())["id"])

    def nothing_is_left(self) -> None:
        """No job, and no process on any node, as it shows from outside."""
        self.cluster.until(lambda: not self.cluster.ask("squeue", "--noheader"), "jobs are left")
        hosts = self.cluster.hosts
        self.cluster.until(lambda: not any(host.processes() for host in hosts), "processes are left on a node")
        self.cluster.until(lambda: not self._at_login(), "something is left on the login node")

    def _at_login(self) -> list[psutil.Process]:
        ours = {"tflaunch", "salloc", "srun"}
        found = []
        for process in self.cluster.at_login():
            with suppress(psutil.Error):
                found += [process] * (process.name() in ours)
        return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes of four cores, which Slurm does not give up before we do; what is for srun has ports of its own."""
    if why := testbed.missing():
        pytest.skip(why)
    with Cluster(3, settings=("SlurmdTimeout=100", f"SrunPortRange={testbed.SRUN_PORTS}")) as made:
        yield made


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """Three nodes; at the end nothing may be left on any."""
    made = Site(cluster, tmp_path)
    yield made
    try:
        made.nothing_is_left()
    finally:
        # What a test that failed has left is not to fail the next one.
        cluster.ask("scancel", "--quiet", "--user", "root")
