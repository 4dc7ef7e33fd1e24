"""Jobs that tflaunch writes and submits, in a real queue."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slurm.conftest import Site

pytestmark = pytest.mark.timeout(180)


def submitted(site: Site, *words: str) -> tuple[str, Path]:
    """Submit a run. Returns the job's id, and the run's directory."""
    ended = site.tflaunch()("submit", *words)
    assert ended.status == 0, ended.err
    return ended.lines[-1], (site.folder / "runs" / "latest").resolve()


def test_a_run_is_submitted_and_runs(site: Site) -> None:
    job, folder = submitted(
        site, "-N", "2", "-n", "3", "-e", "WORD=a b", "--", "sh", "-c", 'echo "$SLURMD_NODENAME $WORD"'
    )
    site.over(job)
    outcome = json.loads((folder / "outcome.json").read_text())
    assert outcome["status"] == "ok", (folder / f"job-{job}.log").read_text()
    said = sorted((folder / "attempt-0" / f"worker-{number}.log").read_text() for number in range(3))
    assert said == ["n1 a b\n", "n1 a b\n", "n2 a b\n"]
    assert json.loads((folder / "job.json").read_text())["node"] == "n1"
    assert site.tflaunch()("status").lines[0].startswith(f"{folder.name} · done")


def test_what_is_submitted_can_be_read_first(site: Site) -> None:
    ended = site.tflaunch()("submit", "-N", "2", "-t", "0:10:00", "--requeue", "--dry-run", "--", "true")
    assert ended.status == 0
    text = "\n".join(ended.lines)
    assert text.startswith("#!/bin/bash\n#SBATCH --job-name=true\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n")
    assert "#SBATCH --signal=B:USR1@120" in ended.lines
    assert not site.tflaunch().runs()
    assert not site.cluster.ask("squeue", "--noheader")


def test_slurm_does_not_take_it(site: Site) -> None:
    ended = site.tflaunch()("submit", "-N", "40", "-n", "40", "-p", "nowhere", "--", "true")
    assert ended.status == 69
    assert "Invalid partition name specified" in ended.err
    assert not site.tflaunch().runs()


def test_one_that_waits_is_seen_and_can_be_stopped(site: Site) -> None:
    tflaunch = site.tflaunch()
    job, folder = submitted(site, "--option=--hold", "--", "sleep", "600")
    (row,) = [line for line in tflaunch("ps").lines if folder.name in line]
    assert "pending" in row
    said = tflaunch("status").lines
    assert said[1] == f"job {job} is pending (JobHeldUser): it is held: scontrol release lets it go"
    ended = tflaunch("stop")
    assert ended.status == 0, ended.err
    site.over(job)


def test_one_that_runs_is_stopped_in_good_order(site: Site) -> None:
    tflaunch = site.tflaunch()
    job, folder = submitted(
        site, "-N", "2", "--", "sh", "-c", "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    )
    logs = tflaunch.start("logs", "-f")
    logs.until("up", times=2)
    ended = tflaunch("stop")
    assert ended.status == 0, ended.err
    site.over(job)
    assert logs.end()[0] == 0
    assert sum("saved" in line for line in logs.seen) == 2
    assert json.loads((folder / "outcome.json").read_text())["exit_status"] == 128 + signal.SIGTERM


def test_an_array_has_a_run_for_each_number(site: Site) -> None:
    ended = site.tflaunch()("submit", "-a", "1-2", "--", "sh", "-c", "echo number $SLURM_ARRAY_TASK_ID")
    job = ended.lines[-1]
    site.over(job)
    runs = sorted(path for path in (site.folder / "runs").glob("sh-*-?") if path.is_dir())
    assert [(path / "attempt-0" / "worker-0.log").read_text() for path in runs] == ["number 1\n", "number 2\n"]


ENDLESS = "trap 'exit 0' TERM; echo life $TFLAUNCH_ATTEMPT; [ $TFLAUNCH_ATTEMPT = 1 ] || while :; do sleep 0.1; done"


@pytest.mark.parametrize("way", ["--requeue", "--until-done"])
def test_a_job_that_is_warned_goes_on_in_the_same_directory(site: Site, way: str) -> None:
    job, folder = submitted(site, "-N", "2", way, "--", "sh", "-c", ENDLESS)
    logs = site.tflaunch().start("logs", "-f")
    logs.until("life 0", times=2)
    site.cluster.ask("scancel", "--batch", "--signal=USR1", job)
    logs.until("life 1", times=2)
    assert logs.end()[0] == 0
    site.over(site.job(folder))
    assert json.loads((folder / "outcome.json").read_text())["status"] == "ok"
    before = json.loads((folder / "attempt-0" / "outcome.json").read_text())
    assert before["reason"] == "interrupted by SIGUSR1, a warning that the time is nearly over"
    assert (site.job(folder) == job) == (way == "--requeue")


def test_a_job_that_stands_still_is_not_queued_for_ever(site: Site) -> None:
    program = site.script(
        "import _tflaunch_boot, signal, time\n"
        "_tflaunch_boot.report('progress', step=7)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    job, folder = submitted(site, "--until-done", program)
    logs = site.tflaunch().start("logs", "-f")
    for _ in range(2):
        logs.until("up")
        site.cluster.ask("scancel", "--batch", "--signal=USR1", site.job(folder))
    assert logs.end()[0] == 0
    last = site.job(folder)
    site.over(last)
    assert f"job {last} goes on from here" in (folder / f"job-{job}.log").read_text()
    said = (folder / f"job-{last}.log").read_text()
    assert "no new step since the last job, which ended at step 7: not queued again" in said


def test_a_launcher_on_another_machine_is_reached_through_its_job(site: Site) -> None:
    """Whose socket is in a directory that both see, but leads nowhere here."""
    _, folder = submitted(site, "-N", "2", "--", "sh", "-c", "echo up; sleep 600")
    site.tflaunch().start("logs", "-f").until("up", times=2)
    hidden = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount --bind /dev/null "$0" && exec "$@"',
        str(folder / "control.sock"),
    )
    away = site.tflaunch(*hidden)
    (row,) = [line for line in away("ps").lines if folder.name in line]
    assert "running" in row
    said = away("status")
    assert [line.split()[:3] for line in said.lines[1:]] == [["worker", "0", "10.77.0.1"], ["worker", "1", "10.77.0.2"]]
    assert "told nothing" in "\n".join(away("stacks").lines)
    assert away("stop").status == 0
    assert json.loads((folder / "outcome.json").read_text())["exit_status"] == 128 + signal.SIGTERM
