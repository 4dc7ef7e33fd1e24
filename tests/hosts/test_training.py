"""A project of one's own on several hosts: its files are copied there, and what it has learnt comes back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.hosts import project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.conftest import Field

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(240)]


@pytest.mark.parametrize(("count", "by"), [(2, "address"), (2, "name"), (3, "address")])
def test_digits(three: Field, count: int, by: str, calm: Path) -> None:
    folder = three.tflaunch.cwd
    commit = project.make(folder)
    named = [{"address": getattr(host, by)} for host in three.bed.hosts[:count]]
    cluster = three.cluster(hosts=named, sync=True, fetch=["checkpoints"], cwd=None)
    ended = three.tflaunch("train", cluster, *project.FLAGS, timeout=180)
    assert ended.status == 0, ended.err
    assert ended.run_dir is not None
    tree = json.loads((ended.run_dir / "run.json").read_text())["tree"]
    assert (tree["commit"], tree["dirty"]) == (commit, True)
    assert project.accuracy(ended.lines) == project.accuracy((calm / "said").read_text().splitlines()) > 90
    trained, alone = folder / "checkpoints/digits", calm / "checkpoints/digits"
    project.assert_trained(trained, alone)
    assert_same_model(trained / "export/model.keras", alone / "export/model.keras")


def assert_same_model(one: Path, other: Path) -> None:
    import keras
    import numpy as np

    models = [keras.models.load_model(file).get_weights() for file in (one, other)]
    for mine, theirs in zip(*models, strict=True):
        assert np.linalg.norm(mine - theirs) <= 1e-5 * np.linalg.norm(theirs)
