from __future__ import annotations

from typing import Any

import pytest

from launcher.config import ClusterConfig, HostSpec, Program
from launcher.errors import RequestError, UnavailableError
from launcher.placement import Host, Task, dialled, divide, found, place, spread, without

HERE = HostSpec("127.0.0.1")


def cluster(*hosts: HostSpec, workers: int = 2, **settings: Any) -> ClusterConfig:
    return ClusterConfig(
        command=Program(("true",)), name="t", engine="local", hosts=hosts or (HERE,), workers=workers, **settings
    )


def facts(cores: int = 4, gpus: int = 0, **others: list[str]) -> dict[str, Any]:
    found = {"cores": list(range(cores)), "gpus": [str(gpu) for gpu in range(gpus)]}
    return {**found, "set": [], "exposed": [], "executable": "/py", "code": "/code", **others}


class TestTask:
    def test_names(self) -> None:
        task = Task(3, "worker", 1, "a")
        assert (task.label, task.slug) == ("worker 1", "worker-1")

    @pytest.mark.parametrize(
        ("job", "expected"), [("chief", True), ("worker", True), ("ps", True), ("evaluator", False)]
    )
    def test_nobody_dials_an_evaluator(self, job: str, expected: bool) -> None:
        assert Task(0, job, 0, "a").is_dialled is expected


class TestSpread:
    @pytest.mark.parametrize(
        ("given", "workers", "expected"),
        [
            ([None], 3, [3]),
            ([None, None], 4, [2, 2]),
            ([None, None], 3, [2, 1]),
            ([2, None, None], 7, [2, 3, 2]),
            ([1, 5], 6, [1, 5]),
            ([None, 3], 3, [0, 3]),
        ],
    )
    def test_own_numbers_first_and_the_rest_evenly(
        self, given: list[int | None], workers: int, expected: list[int]
    ) -> None:
        hosts = [HostSpec(f"h{i}", count) for i, count in enumerate(given)]
        assert spread(cluster(*hosts, workers=workers)) == expected


class TestDivide:
    @pytest.mark.parametrize(
        ("cores", "parts", "expected"),
        [
            ([0, 1, 2, 3], 2, [(0, 1), (2, 3)]),
            ([0, 1, 2, 3, 4], 2, [(0, 1), (2, 3, 4)]),
            ([4, 7], 2, [(4,), (7,)]),
            ([0, 1], 3, [(0,), (1,), (0,)]),
            ([5], 1, [(5,)]),
            ([], 2, [(), ()]),
            ([0, 1], 0, []),
        ],
    )
    def test_parts(self, cores: list[int], parts: int, expected: list[tuple[int, ...]]) -> None:
        assert divide(cores, parts) == expected

    @pytest.mark.parametrize("parts", range(1, 9))
    def test_every_core_is_given_out_once_and_evenly(self, parts: int) -> None:
        shares = divide(range(8), parts)
        assert [core for share in shares for core in share] == list(range(8))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


class TestPlace:
    def test_tasks_are_numbered_job_by_job(self) -> None:
        tasks = place(cluster(workers=2, chief=1, ps=1, evaluator=1), [Host("127.0.0.1")])
        assert [task.label for task in tasks] == ["chief 0", "worker 0", "worker 1", "ps 0", "evaluator 0"]
        assert [task.number for task in tasks] == [0, 1, 2, 3, 4]

    def test_workers_fill_hosts_in_order_and_the_others_have_their_places(self) -> None:
        config = cluster(HostSpec("a"), HostSpec("b"), workers=3, chief=1, ps=3, evaluator=1)
        tasks = place(config, [Host("a"), Host("b")])
        assert [(task.label, task.host) for task in tasks] == [
            ("chief 0", "a"),
            ("worker 0", "a"), ("worker 1", "a"), ("worker 2", "b"),
            ("ps 0", "a"), ("ps 1", "b"), ("ps 2", "a"),
            ("evaluator 0", "b"),
        ]  # fmt: skip

    def test_tasks_of_a_host_share_its_cores_and_nobody_elses(self) -> None:
        config = cluster(HostSpec("a"), HostSpec("b"), workers=4)
        tasks = place(config, [Host("a", (0, 1, 2, 3)), Host("b", (8, 9))])
        assert [task.cores for task in tasks] == [(0, 1), (2, 3), (8,), (9,)]

    @pytest.mark.parametrize(("config", "cores"), [(cluster(partition=False), (0, 1)), (cluster(), ())])
    def test_cores_are_left_alone_when_asked_for_or_not_known(
        self, config: ClusterConfig, cores: tuple[int, ...]
    ) -> None:
        assert {task.cores for task in place(config, [Host("127.0.0.1", cores)])} == {()}

    @pytest.mark.parametrize(
        ("config", "gpus", "expected"),
        [
            (cluster(), "", [None, None]),
            (cluster(), "0123", [("0", "1"), ("2", "3")]),
            (cluster(), "012", [("0",), ("1",)]),
            (cluster(), "0", [(), ()]),
            (cluster(gpus_per_task=1), "0123", [("0",), ("1",)]),
            (cluster(gpus_per_task=0), "01", [(), ()]),
            (cluster(ps=1), "01", [("0",), ("1",), ()]),
            (cluster(workers=1, evaluator=1), "01", [("0",), ("1",)]),
        ],
    )
    def test_gpus(self, config: ClusterConfig, gpus: str, expected: list[tuple[str, ...] | None]) -> None:
        assert [task.gpus for task in place(config, [Host("127.0.0.1", (), tuple(gpus) or None)])] == expected

    def test_more_gpus_than_there_are_is_an_error_on_a_host_that_was_asked(self) -> None:
        config = cluster(HostSpec("a"), workers=3, gpus_per_task=2)
        with pytest.raises(RequestError, match=r"a offers 4 GPUs, but its tasks need 6: 3 with 2 each"):
            place(config, [Host("a", (), tuple("0123"))])
        assert len(place(config, [Host("a", known=False)])) == 3

    def test_a_host_may_be_left_without_a_task(self) -> None:
        config = cluster(HostSpec("a"), HostSpec("b"), workers=1)
        (task,) = place(config, [Host("a", (0, 1)), Host("b", (0, 1))])
        assert (task.host, task.cores) == ("a", (0, 1))


class TestWithout:
    HOSTS = (HostSpec("a"), HostSpec("b", 3), HostSpec("c"))

    def test_each_host_that_is_left_keeps_its_workers(self) -> None:
        left = without(cluster(*self.HOSTS, workers=5, min_workers=1), {"a": "down"})
        assert [(host.address, host.workers) for host in left.hosts] == [("b", 3), ("c", 1)]
        assert left.workers == 4

    def test_nobody_is_gone(self) -> None:
        config = cluster(*self.HOSTS, workers=5)
        assert without(config, {}) is config

    def test_as_few_as_were_allowed(self) -> None:
        gone = {"a": "down", "b": "no route"}
        assert without(cluster(*self.HOSTS, workers=5, min_workers=1), gone).workers == 1
        with pytest.raises(
            UnavailableError, match="a is gone: down; b is gone: no route; that leaves 1 of at least 2 workers"
        ):
            without(cluster(*self.HOSTS, workers=5, min_workers=2), gone)

    def test_all_are_needed_unless_it_was_said(self) -> None:
        with pytest.raises(UnavailableError, match="a is gone: down") as caught:
            without(cluster(*self.HOSTS, workers=5), {"a": "down"})
        assert "--min-workers" in caught.value.hint
        with pytest.raises(UnavailableError) as caught:
            without(cluster(), {"127.0.0.1": "down"})
        assert not caught.value.hint


class TestDialled:
    def test_numbers_by_host_without_the_evaluator(self) -> None:
        tasks = [
            Task(0, "worker", 0, "a"), Task(1, "worker", 1, "b"), Task(2, "ps", 0, "a"), Task(3, "evaluator", 0, "b")
        ]  # fmt: skip
        assert dialled(tasks) == {"a": [0, 2], "b": [1]}


class TestFound:
    def test_everything_it_has(self) -> None:
        host = found(HERE, facts(2, 1, set=["OMP_NUM_THREADS"], exposed=["10.0.0.1"]))
        assert host == Host("127.0.0.1", (0, 1), ("0",), frozenset({"OMP_NUM_THREADS"}), ("10.0.0.1",))

    @pytest.mark.parametrize(
        ("spec", "cores", "gpus"),
        [
            (HostSpec("a", cores=2), (0, 1), ("0", "1", "2")),
            (HostSpec("a", cores=(3, 1)), (3, 1), ("0", "1", "2")),
            (HostSpec("a", gpus=1), (0, 1, 2, 3), ("0",)),
            (HostSpec("a", gpus=0), (0, 1, 2, 3), ()),
            (HostSpec("a", gpus=("2", "0")), (0, 1, 2, 3), ("2", "0")),
        ],
    )
    def test_what_was_asked_for(self, spec: HostSpec, cores: tuple[int, ...], gpus: tuple[str, ...]) -> None:
        host = found(spec, facts(4, 3))
        assert (host.cores, host.gpus) == (cores, gpus)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (HostSpec("a", cores=5), r"a: 5 cores asked for, but it offers 4"),
            (HostSpec("a", cores=(3, 4, 5)), r"a: cores 4, 5 asked for, but it offers 0, 1, 2, 3"),
            (HostSpec("a", gpus=1), r"a: 1 GPUs asked for, but it offers 0"),
            (HostSpec("a", gpus=("GPU-3faa",)), r"a: GPUs GPU-3faa asked for, but it offers none"),
        ],
    )
    def test_what_is_not_there(self, spec: HostSpec, message: str) -> None:
        with pytest.raises(RequestError, match=message):
            found(spec, facts(4, 0))

    @pytest.mark.parametrize(
        ("spec", "cores", "gpus"),
        [
            (HostSpec("a"), (), None),
            (HostSpec("a", cores=3, gpus=2), (0, 1, 2), ("0", "1")),
            (HostSpec("a", cores=(4, 5), gpus=("GPU-3faa",)), (4, 5), ("GPU-3faa",)),
        ],
    )
    def test_a_host_that_was_not_asked_is_taken_at_its_word(
        self, spec: HostSpec, cores: tuple[int, ...], gpus: tuple[str, ...] | None
    ) -> None:
        host = found(spec, None)
        assert (host.address, host.cores, host.gpus, host.known) == ("a", cores, gpus, False)

    @pytest.mark.parametrize(
        ("spec", "seen", "expected"),
        [
            (HERE, facts(), ("", "")),
            (HERE, None, ("", "")),
            (HostSpec("a"), facts(), ("/py", "/code")),
            (HostSpec("a"), None, ("python3", "<agent>")),
            (HostSpec("a", python="/own"), None, ("/own", "<agent>")),
        ],
    )
    def test_which_interpreter_and_whose_code(
        self, spec: HostSpec, seen: dict[str, Any] | None, expected: tuple[str, str]
    ) -> None:
        host = found(spec, seen)
        assert (host.python, host.code) == expected

    def test_the_clusters_interpreter(self) -> None:
        assert found(HostSpec("a"), None, "/theirs").python == "/theirs"
        assert found(HostSpec("a", python="/own"), None, "/theirs").python == "/own"
