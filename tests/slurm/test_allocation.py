"""What a run finds in the allocations of a real Slurm: nodes, addresses, tasks, cores and GPUs."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from launcher.slurm import allocation
from tests.slurm import testbed
from tests.slurm.conftest import Site
from tests.slurm.testbed import Cluster, environment_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

SHOW = "echo $SLURMD_NODENAME $(sed -n 's/Cpus_allowed_list:.//p' /proc/self/status) ${CUDA_VISIBLE_DEVICES-none}"


def shown(site: Site, *salloc: str) -> list[list[str]]:
    """Node, cores and GPUs of each worker of a job."""
    ended = site.run("sh", "-c", SHOW, salloc=salloc)
    assert ended.status == 0, ended.err
    return sorted(line.partition("| ")[2].split() for line in ended.lines)


@pytest.fixture(scope="module")
def bound() -> Iterator[Cluster]:
    """Nodes of two cores and three GPUs, where Slurm binds what it starts to what it has been given."""
    if why := testbed.missing():
        pytest.skip(why)
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core cannot be divided")
    with Cluster(2, cores=2, gpus=3, settings=("TaskPlugin=task/affinity",)) as made:
        yield made


@pytest.fixture(scope="module")
def many() -> Iterator[Cluster]:
    if why := testbed.missing():
        pytest.skip(why)
    with Cluster(16) as made:
        yield made


class TestTasks:
    def workers(self, site: Site, *salloc: str) -> Counter[str]:
        return Counter(node for node, *_ in shown(site, *salloc))

    def test_uneven(self, site: Site) -> None:
        assert self.workers(site, "-N3", "-n6") == {"n1": 4, "n2": 1, "n3": 1}

    def test_a_part_of_the_cluster(self, site: Site) -> None:
        assert self.workers(site, "--nodelist=n1,n3", "--ntasks-per-node=2") == {"n1": 2, "n3": 2}

    def test_all_of_each_node_is_not_a_worker_for_each_core(self, site: Site) -> None:
        assert self.workers(site, "-N2", "--exclusive") == {"n1": 1, "n2": 1}

    def test_fewer_nodes_than_asked_for(self, site: Site) -> None:
        ended = site.run("true", salloc=("-N2",), slurm={"nodes": 3})
        assert ended.status == 2
        assert "are 3, but the allocation has 2" in ended.err

    def test_more_workers_than_tasks(self, site: Site) -> None:
        ended = site.run("true", salloc=("-N2",), workers=5)
        assert "true: 5 workers on 2 hosts" in ended.err


def test_each_node_has_the_python_that_is_named_for_it(site: Site) -> None:
    hosts = []
    for number, name in ((1, "one"), (2, "other")):
        python = site.program(name, f'touch {name}-$SLURMD_NODENAME; exec {sys.executable} "$@"')
        hosts.append({"address": f"10.77.0.{number}", "node": f"n{number}", "python": python})
    ended = site.run("true", salloc=("-N2",), hosts=hosts)
    assert ended.status == 0, ended.err
    assert {path.name for path in site.folder.glob("*-n?")} == {"one-n1", "other-n2"}


@pytest.mark.parametrize("names", ["n[1-3,7]", "n[8-11],m2", "r[1-2]n[08-11,3]", "a1,a10,a2"])
def test_host_lists_are_read_as_slurm_reads_them(cluster: Cluster, names: str) -> None:
    assert list(allocation.expand(names)) == cluster.ask("scontrol", "show", "hostnames", names).split()


class TestShares:
    @pytest.fixture
    def here(self, bound: Cluster, tmp_path: Path) -> Iterator[Site]:
        made = Site(bound, tmp_path)
        yield made
        made.nothing_is_left()

    @pytest.mark.parametrize(
        ("job", "workers"),
        [
            ("-N2 -n2", ["n1 1 none", "n2 1 none"]),
            ("-N2 -c2", ["n1 2 none", "n2 2 none"]),
            ("-N1 --ntasks-per-node=2 --gpus-per-task=1", ["n1 1 0", "n1 1 1"]),
            ("-N1 -n1 -c2 --gpus-per-task=3 --gpu-bind=single:1", ["n1 2 0,1,2"]),
            ("-N2 -n3 --gpus-per-task=1", ["n1 1 0", "n1 1 1", "n2 1 0"]),
            ("-N2 -n2 --gpus=4", ["n1 1 0,1,2", "n2 1 0"]),
            ("-N2 -n2 --gres=gpu:2 --mem-per-cpu=100", ["n1 1 0,1", "n2 1 0,1"]),
        ],
    )
    def test_what_the_job_has_on_a_node_is_for_its_workers(self, here: Site, job: str, workers: list[str]) -> None:
        found = shown(here, *job.split())
        counts = [f"{node} {len([*allocation.expand(f'[{cores}]')])} {gpus}" for node, cores, gpus in found]
        assert counts == workers
        ours = [f"{node} {core}" for node, cores, _ in found for core in allocation.expand(f"[{cores}]")]
        assert len({*ours}) == len(ours)


class TestSixteen:
    def test_all_have_their_places_in_the_order_of_slurm(self, many: Cluster, tmp_path: Path) -> None:
        site = Site(many, tmp_path)
        ended = site.run("sh", "-c", "echo $SLURMD_NODENAME $TF_CONFIG", salloc=("-N16",))
        assert ended.status == 0, ended.err
        node, config = ended.log("worker-9").decode().split(maxsplit=1)
        workers = json.loads(config)["cluster"]["worker"]
        assert [place.partition(":")[0] for place in workers] == [f"10.77.0.{number}" for number in range(1, 17)]
        assert node == "n10"
        site.nothing_is_left()

    @pytest.mark.tensorflow
    def test_tensorflows_own_resolver_has_them_otherwise(
        self, many: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It sorts names as text, so that the second task, which is on n2, is told that it is n10's; names resolve nowhere here.

        And with no GPU it has no answer at all (TensorFlow 2.21).
        """
        tf = pytest.importorskip("tensorflow")
        many.ask("salloc", "-N16", "srun", "sh", "-c", f"[ $SLURM_PROCID != 1 ] || env -0 > {tmp_path}/env")
        second = environment_of(tmp_path / "env")
        assert second["SLURMD_NODENAME"] == "n2"
        for name, value in second.items():
            if name.startswith("SLURM"):
                monkeypatch.setenv(name, value)
        resolver = partial(tf.distribute.cluster_resolver.SlurmClusterResolver, auto_set_gpu=False)
        with pytest.raises(ValueError, match="must not be zero"):
            resolver(gpus_per_node=0).cluster_spec()
        pretended = resolver(gpus_per_node=1)
        assert pretended.cluster_spec().as_dict()["worker"][:3] == ["n1:8888", "n10:8888", "n11:8888"]
        assert pretended.get_task_info() == ("worker", 1)
        ours = allocation.read(second)
        assert ours is not None
        assert list(ours.tasks)[:3] == ["n1", "n2", "n3"]
