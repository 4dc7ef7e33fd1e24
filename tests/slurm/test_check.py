"""``tflaunch check`` on a login node, and in an allocation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slurm.conftest import Site

pytestmark = pytest.mark.timeout(120)


def test_on_a_login_node_partitions_are_held_against_the_request(site: Site) -> None:
    tflaunch = site.tflaunch()
    fine = tflaunch("check", site.request(slurm={"nodes": 2}))
    assert fine.status == 0, fine.err
    assert fine.lines[-1] == "a job can be submitted"
    assert fine.lines[0].endswith("is UP · knows you by munge")
    assert fine.lines[2].split() == ["partition", "time", "limit", "nodes", "idle", "cores", "memory", "GPUs"]
    asked = {"nodes": 40, "cpus_per_task": 5, "gpus_per_node": "1"}
    wrong = tflaunch("check", site.request(slurm=asked, workers=40), "--json")
    assert wrong.status == 69
    told = json.loads(wrong.out)
    assert [finding["why"] for finding in told["findings"]] == [
        "40 nodes asked for, but partition main has 3",
        "5 cores asked for on a node, but there are 4",
        "partition main has no GPUs",
    ]
    nowhere = tflaunch("check", site.request(slurm={"partition": "gpu"}))
    assert (nowhere.status, "there is no partition gpu" in nowhere.out.decode()) == (69, True)


def test_in_an_allocation_nodes_dial_each_other(site: Site) -> None:
    ended = site.tflaunch("salloc", "-N2")("check", site.request(), "--json")
    told = json.loads(ended.out)
    assert ended.status == 0, told
    assert {(one["caller"], one["callee"]) for one in told["dialled"]} >= {("10.77.0.1", "10.77.0.2")}


def test_no_controller(site: Site) -> None:
    nobody = site.folder / "slurm.conf"
    nobody.write_text(site.cluster.conf.read_text().replace("10.77.0.254", "10.77.0.253"))
    ended = site.tflaunch()("check", site.request(), env={"SLURM_CONF": str(nobody)})
    assert ended.status == 69
    assert "scontrol ping says whether it is up" in ended.err
