from __future__ import annotations

import pytest

from launcher.errors import UnavailableError
from launcher.slurm.allocation import expand, read, repeated


class TestRead:
    def given(self, names: str, tasks: str | None, **more: str) -> dict[str, str]:
        said = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": names, "SLURM_NTASKS": "9", **more}
        return said if tasks is None else {**said, "SLURM_TASKS_PER_NODE": tasks}

    @pytest.mark.parametrize("given", [{}, {"SLURM_JOB_ID": "7"}, {"SLURM_JOB_NODELIST": "n1"}, {"SLURM_JOB_ID": ""}])
    def test_there_is_none(self, given: dict[str, str]) -> None:
        assert read(given) is None

    def test_its_nodes_in_their_order_and_the_tasks_on_each(self) -> None:
        found = read(self.given("n[9-10,2]", "4,1(x2)"))
        assert found is not None
        assert (found.job, list(found.tasks.items())) == ("7", [("n9", 4), ("n10", 1), ("n2", 1)])

    def test_nothing_is_said_of_tasks(self) -> None:
        found = read(self.given("n[1-2]", None))
        assert found is not None
        assert found.tasks == {"n1": 1, "n2": 1}

    def test_what_there_is_room_for_was_not_asked_for(self) -> None:
        given = self.given("n[1-2]", "64(x2)")
        del given["SLURM_NTASKS"]
        found = read(given)
        assert found is not None
        assert found.tasks == {"n1": 1, "n2": 1}

    def test_a_step_of_fewer_nodes(self) -> None:
        with pytest.raises(
            UnavailableError, match=r"job 7: SLURM_JOB_NODELIST has 3 nodes, but SLURM_TASKS_PER_NODE 1\n"
        ):
            read(self.given("n[1-3]", "1"))


@pytest.mark.parametrize(
    ("names", "nodes"),
    [
        ("n1", ["n1"]),
        ("n1,m2", ["n1", "m2"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("n[08-10],m[1,3-4]", ["n08", "n09", "n10", "m1", "m3", "m4"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("gpu-a[1-2]-x.cluster", ["gpu-a1-x.cluster", "gpu-a2-x.cluster"]),
        ("", []),
    ],
)
def test_a_host_list(names: str, nodes: list[str]) -> None:
    assert list(expand(names)) == nodes


@pytest.mark.parametrize(
    ("counts", "each"), [("2", [2]), ("2(x3)", [2, 2, 2]), ("4,1(x2)", [4, 1, 1]), ("16(x2),8", [16, 16, 8])]
)
def test_counts(counts: str, each: list[int]) -> None:
    assert list(repeated(counts)) == each
