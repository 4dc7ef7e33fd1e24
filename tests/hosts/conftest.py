from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.conftest import Command
from tests.hosts import project, testbed
from tests.hosts.testbed import PYTHON, Testbed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.conftest import Ended, Started


@dataclass
class Field:
    """Hosts, and the command on their controller."""

    bed: Testbed
    tflaunch: Command
    settings: dict[str, Any] = field(default_factory=dict)

    def cluster(self, **settings: Any) -> str:
        """Write a cluster.json with all hosts."""
        hosts = [{"address": host.address} for host in self.bed.hosts]
        chosen = {"hosts": hosts, "python": PYTHON, "cwd": "/tmp", "backoff": 0.1, **settings}
        given = {name: value for name, value in chosen.items() if value is not None}
        (self.tflaunch.cwd / "cluster.json").write_text(json.dumps(given))
        return "cluster.json"

    def run(self, *command: str, **settings: Any) -> Ended:
        return self.tflaunch("run", self.cluster(**settings), "--", *command)

    def start(self, *command: str, **settings: Any) -> Started:
        return self.tflaunch.start("run", self.cluster(**settings), "--", *command)

    def nothing_is_left(self) -> None:
        """On no host, as it shows from outside."""
        self.bed.until(lambda: not any(host.processes() for host in self.bed.hosts), "processes are left on a host")
        for host in self.bed.hosts:
            assert host.listening() == []
            # The sockets at which agents are met again.
            assert host.files(f"/tmp/tflaunch-{os.getuid()}") == []


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Field]:
    """Two hosts; at the end nothing may be left on either."""
    yield from _field(tmp_path, 2)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Field]:
    yield from _field(tmp_path, 3)


def _field(folder: Path, count: int) -> Iterator[Field]:
    if why := testbed.missing():
        pytest.skip(why)
    with ExitStack() as stack:
        bed = stack.enter_context(Testbed(count))
        tflaunch = Command(folder, tuple(bed.on_controller([])))
        made = Field(bed, tflaunch)
        yield made
        tflaunch.end()
        made.nothing_is_left()


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the project was trained by one worker on this machine, with nothing in its way."""
    folder = tmp_path_factory.mktemp("calm")
    project.make(folder)
    ended = Command(folder)("train", "-n", "1", *project.FLAGS)
    assert ended.status == 0, ended.err
    (folder / "said").write_text("\n".join(ended.lines))
    return folder
