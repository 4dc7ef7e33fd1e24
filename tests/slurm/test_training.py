"""Real training in the allocations of a real Slurm, with the weights of one worker that nothing happened to."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.hosts import project
from tests.slurm.conftest import Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Started

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(300)]


def test_two_jobs_at_once(site: Site, calm: Path) -> None:
    """On two nodes and on three, of which the first two are the same."""
    runs: dict[Path, Started] = {}
    for count in (2, 3):
        folder = site.folder / f"on-{count}"
        folder.mkdir()
        project.make(folder)
        here = Site(site.cluster, folder)
        runs[folder] = here.tflaunch("salloc", f"-N{count}").start("train", here.request(), *project.FLAGS)
    for folder, run in runs.items():
        status, err = run.end(within=200)
        assert status == 0, err
        assert project.accuracy(run.seen) == project.accuracy((calm / "said").read_text().splitlines())
        project.assert_trained(folder / "checkpoints/digits", calm / "checkpoints/digits")


def test_a_job_whose_time_is_over_goes_on_where_it_was(site: Site, calm: Path) -> None:
    """It is warned in the midst of its training, and queued again: no step is lost, and none is made twice.

    By Slurm's own clock, which looks twice a minute: the limit is brought near once it trains, and put off for its second life.
    """
    notes = site.folder / "notes"
    notes.mkdir()
    for phase in ("start-up", "checkpoint"):
        (notes / f"{phase}.over").touch()
    project.make(site.folder)
    words = ("-N", "2", "-t", "60", "--warning=59", "--requeue", "-e", f"NOTES={notes}", "-m", "worker", *project.FLAGS)
    ended = site.tflaunch()("submit", *words)
    assert ended.status == 0, ended.err
    job = ended.lines[-1]
    folder = (site.folder / "runs/latest").resolve()
    until = site.cluster.until
    until((notes / "training.worker:0").exists, "it does not train", within=90)
    limit = ("scontrol", "update", f"JobId={job}")
    site.cluster.ask(*limit, "TimeLimit=1")
    until(lambda: site.happened("Signalled"), "nobody is warned", within=90)
    site.cluster.ask(*limit, "TimeLimit=60")
    (notes / "training.over").touch()
    until((folder / "attempt-1").exists, "it is not queued again", within=90)
    site.over(job, 120)
    assert json.loads((folder / "outcome.json").read_text())["status"] == "ok", (folder / f"job-{job}.log").read_text()
    for number in (0, 1):
        logs = [(folder / f"attempt-{attempt}/worker-{number}.log").read_text() for attempt in (0, 1)]
        before, after = ([int(step) for step in re.findall(r"^before step (\d+)$", log, re.MULTILINE)] for log in logs)
        assert before + after == list(range(project.STEPS))
        assert after
    project.assert_trained(site.folder / "checkpoints/digits", calm / "checkpoints/digits")
