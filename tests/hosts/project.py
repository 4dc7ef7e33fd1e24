"""A user's own project: a task of several files in a repository, and a place to wait at in each phase of its training."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Literal

from tests.chaos import remains

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Phase = Literal["start-up", "training", "checkpoint"]
PHASES: tuple[Phase, ...] = ("start-up", "training", "checkpoint")
STEPS = 115
FLAGS = ("mine.py:task", "--save-every", "20 steps", "--steps-per-call", "1")

# Committed, and wrong: what is trained with is what lies in the folder.
_COMMITTED = "EPOCHS = 0\n"
_CHANGED = "EPOCHS = 5\n"

# Where NOTES is a folder, whoever comes to a phase says so in it, and waits there until somebody lets the phase go on. Once in a
# run: later attempts pass. All workers wait before their cluster is formed, the chief before a step when there is a checkpoint
# to go on from, and the chief's writer with a checkpoint that is written and has not its name yet. Every worker counts its steps.
_TASK = '''
"""The digits, a little shorter."""

import os
import time
from dataclasses import replace
from pathlib import Path

from recipe import EPOCHS
from worker import train
from worker.checkpoint.disk import Disk
from worker.tasks.digits import TASK

NOTES = os.environ.get("NOTES")


def wait(phase):
    if NOTES and not Path(NOTES, phase + ".over").exists():
        Path(NOTES, phase + "." + os.environ["TFLAUNCH_TASK"]).touch()
        while not Path(NOTES, phase + ".over").exists():
            time.sleep(0.005)


def stepped(run, start, *rest, step=train._stepped):
    print("before step", start.step, flush=True)
    if start.step >= 30 and os.environ["TFLAUNCH_TASK"] == "worker:0":
        wait("training")
    return step(run, start, *rest)


def renamed(disk, name, new, rename=Disk.rename, **how):
    if name.startswith(".writing-ckpt-") and any(Path(disk.directory).glob("ckpt-*")):
        wait("checkpoint")
    rename(disk, name, new, **how)


train._stepped, Disk.rename = stepped, renamed
task = replace(TASK, epochs=EPOCHS)
wait("start-up")
'''


def make(folder: Path) -> str:
    """Put it into a folder, with a commit and a change since; returns the commit."""
    files = {"mine.py": _TASK, "recipe.py": _COMMITTED, ".gitignore": "checkpoints\nruns\ncluster.json\n__pycache__\n"}
    for name, text in files.items():
        (folder / name).write_text(text)
    _git(folder, "init", "-q")
    _git(folder, "add", ".")
    _git(folder, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", "begin")
    (folder / "recipe.py").write_text(_CHANGED)
    return _git(folder, "rev-parse", "HEAD").strip()


def accuracy(lines: Sequence[str]) -> float:
    """Of the test images, in percent."""
    (said,) = re.findall(r"test accuracy +([\d.]+)%", "\n".join(lines))
    return float(said)


def assert_trained(found: Path, calm: Path) -> None:
    """These checkpoints are whole, and the newest is what ``calm`` has, to fp32 rounding."""
    import numpy as np

    remains.assert_whole(found)
    trained, alone = remains.weights(found), remains.weights(calm)
    assert trained.keys() == alone.keys() != set()
    for name, value in alone.items():
        # Of a whole variable: some of Adam's are next to nothing.
        assert np.linalg.norm(trained[name] - value) <= 1e-5 * np.linalg.norm(value), name


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout
