"""That the launchers over ssh are told what they are to be told, and reach hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks import remote
from tests.benchmarks.case import run
from tests.benchmarks.cases import agents
from tests.benchmarks.launchers import Job
from tests.benchmarks.remote import PARALLEL_SSH, PDSH, SSH_LOOP, TFLAUNCH_SSH, XARGS_SSH
from tests.benchmarks.trial import Trial
from tests.hosts import testbed
from tests.hosts.testbed import PYTHON, Testbed

if TYPE_CHECKING:
    from collections.abc import Iterator

# ssh -n HOST COMMAND, for hosts that are this machine.
_SSH = '#!/bin/sh\necho "$2 $(sh -c "$3")"\n'
_TELL = "import os; print(os.environ['TF_CONFIG'])"


@pytest.fixture
def two() -> Iterator[remote.Hosts]:
    if why := testbed.missing():
        pytest.skip(why)
    with remote.hosts(2) as hosts:
        yield hosts


def test_the_loop_gives_each_worker_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(_SSH)
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "tell me.py").write_text(_TELL)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    job = Job(4, "tell me.py", (), tmp_path, ("h1", "h2"), sys.executable, tmp_path)

    said = subprocess.run(SSH_LOOP.argv(job), capture_output=True, text=True, check=True).stdout

    told = sorted(line.split(" ", 1) for line in said.splitlines())
    places = [(host, json.loads(config)) for host, config in told]
    assert [(host, place["task"]["index"]) for host, place in places] == [("h1", 0), ("h1", 1), ("h2", 2), ("h2", 3)]
    cluster = {"worker": ["h1:2222", "h1:2223", "h2:2224", "h2:2225"]}
    assert all(place["cluster"] == cluster and place["task"]["type"] == "worker" for _, place in places)


def test_every_launcher_is_told_of_all_hosts(tmp_path: Path) -> None:
    job = Job(2, "noop.py", (), tmp_path, ("h1", "h2"), PYTHON, Path("/shared"))
    for launcher in (PDSH, PARALLEL_SSH, XARGS_SSH):
        assert f"{PYTHON} /shared/noop.py" in " ".join(launcher.argv(job)).replace("'", "")
        assert (tmp_path / "hosts").read_text() == "h1\nh2\n"
    assert TFLAUNCH_SSH.argv(job)[1:] == ["run", "cluster.json", "/shared/noop.py"]
    told = json.loads((tmp_path / "cluster.json").read_text())
    assert told["hosts"] == [{"address": "h1"}, {"address": "h2"}]
    assert (told["python"], told["workers"]) == (PYTHON, 2)


def test_every_launcher_runs_the_program_on_the_hosts(two: remote.Hosts, tmp_path: Path) -> None:
    program = f"import os; open({str(two.shared / 'been')!r}, 'a').write(os.uname().nodename + ' ')"
    (two.shared / "sign.py").write_text(program)
    for launcher in (SSH_LOOP, PDSH, TFLAUNCH_SSH, PARALLEL_SSH, XARGS_SSH):
        if launcher.path is None:
            continue
        with two.start(Trial(launcher, tmp_path), 2, "sign.py") as started:
            started.finish()
        assert sorted((two.shared / "been").read_text().split()) == ["h1", "h2"], launcher.name
        (two.shared / "been").unlink()


def test_a_connection_is_kept_for_every_ssh_that_follows(two: remote.Hosts) -> None:
    two.keep_connections()
    for host in two.bed.hosts:
        asked = two.bed.on_controller(["ssh", "-O", "check", host.address])
        assert subprocess.run(asked, check=False, capture_output=True).returncode == 0


def test_hosts_are_told_where_the_others_are() -> None:
    if why := testbed.missing():
        pytest.skip(why)
    with Testbed(2) as bed:
        bed.introduce()
        known = bed.hosts[0].run("ip", "neigh").splitlines()
        assert sorted(line.split()[0] for line in known if "PERMANENT" in line) == ["10.77.0.2", "10.77.0.254"]
        bed.hosts[0].run("bash", "-c", "exec 3<>/dev/tcp/10.77.0.2/22")


def test_without_hosts_there_are_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testbed, "missing", lambda: "not installed: nft")

    figures = run(agents.cases(large=False)[0], 1)

    assert figures.samples == {}
    assert set(figures.failures.values()) == {"has no hosts to reach: not installed: nft"}
