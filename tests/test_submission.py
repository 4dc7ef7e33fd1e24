"""What is asked of Slurm: the script, and what is refused before there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from launcher.layers import Layer, build
from launcher.slurm import contradictions, queue, script, site

if TYPE_CHECKING:
    from launcher.config import ClusterConfig
    from launcher.schema import Flaw


def config(**values: Any) -> ClusterConfig:
    return build(Layer("cluster.json", {"command": ["true"], **values}))


def refused(**values: Any) -> list[Flaw]:
    return list(contradictions.found(config(**values)))


class TestScript:
    def text(self, *words: str, **values: Any) -> list[str]:
        return str(script.make(config(**values), ["tflaunch", "run", *words], "runs/true-1")).splitlines()

    def test_it_says_what_was_asked_for_and_nothing_else(self) -> None:
        asked = {
            "nodes": 2,
            "partition": "gpu",
            "time": "4:00:00",
            "gpus_per_node": "a100:2",
            "options": ["--exclusive"],
        }
        assert self.text("train.py", "a b", workers=4, slurm=asked) == [
            "#!/bin/bash",
            "#SBATCH --job-name=true",
            "#SBATCH --nodes=2",
            "#SBATCH --ntasks-per-node=2",
            "#SBATCH --partition=gpu",
            "#SBATCH --time=4:00:00",
            "#SBATCH --gpus-per-node=a100:2",
            "#SBATCH --output=runs/true-1/job-%j.log",
            "#SBATCH --open-mode=append",
            "#SBATCH --signal=B:USR1@120",
            "#SBATCH --no-requeue",
            "#SBATCH --exclusive",
            "",
            "# tflaunch is the job's own process: the warning comes to it, and all workers save one checkpoint together,",
            "# 120 s before the time is over.",
            "exec tflaunch run train.py 'a b'",
        ]

    def test_every_word_of_slurms(self) -> None:
        asked = {
            "account": "a",
            "qos": "q",
            "mem": "4G",
            "constraint": "x&y",
            "dependency": "afterok:1",
            "cpus_per_task": 2,
        }
        lines = self.text(slurm=asked, min_workers=1, max_restarts=1)
        said = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
        assert said[2:8] == [
            "--account=a",
            "--qos=q",
            "--cpus-per-task=2",
            "--mem=4G",
            "'--constraint=x&y'",
            "--dependency=afterok:1",
        ]
        assert said[-1] == "--no-kill"

    @pytest.mark.parametrize(
        ("values", "size"),
        [
            ({}, ["--ntasks=1"]),
            ({"workers": 3}, ["--ntasks=3"]),
            ({"slurm": {"nodes": 2}}, ["--nodes=2", "--ntasks-per-node=1"]),
            ({"workers": 3, "slurm": {"nodes": 2}}, ["--nodes=2", "--ntasks=3"]),
        ],
    )
    def test_nodes_and_tasks(self, values: dict[str, Any], size: list[str]) -> None:
        lines = [line.removeprefix("#SBATCH ") for line in self.text(**values)]
        assert [line for line in lines if line.startswith(("--nodes", "--ntasks"))] == size

    def test_percent_signs_of_a_directory_are_its_own(self) -> None:
        made = script.make(config(), ["true"], "100%/x")
        assert "--output=100%%/x/job-%j.log" in made.directives

    def test_the_number_of_an_array_alone_is_for_the_shell(self) -> None:
        (line,) = self.text(f"--into=a b-{script.ARRAY_NUMBER}", "$HOME", slurm={"array": "1-2"})[-1:]
        assert line == "exec tflaunch run '--into=a b-'$SLURM_ARRAY_TASK_ID '$HOME'"

    @pytest.mark.parametrize(
        ("array", "numbers"), [(None, []), ("3", [3]), ("0-2%2", [0, 1, 2]), ("1,5-6", [1, 5, 6]), ("0-9:4", [0, 4, 8])]
    )
    def test_arrays(self, array: str | None, numbers: list[int]) -> None:
        assert script.numbers(array) == numbers


class TestContradictions:
    def test_there_is_none(self) -> None:
        assert refused(engine="slurm", slurm={"nodes": 2, "time": "10"}, workers=2) == []

    @pytest.mark.parametrize(
        ("values", "path", "words"),
        [
            ({"engine": "ssh"}, ("engine",), "ssh reaches no nodes of Slurm"),
            ({"hosts": [{"address": "a"}]}, ("hosts",), "are for Slurm to choose"),
            ({"private": True}, ("private",), "is for this machine alone"),
            ({"slurm": {"nodes": 3}, "workers": 2}, ("slurm", "nodes"), "are 3, but there are only 2 to run"),
            (
                {"slurm": {"time": "3"}},
                ("slurm", "time"),
                "comes 120 s before the limit of 180 s, or up to 60 s earlier",
            ),
            ({"slurm": {"options": ["--exclusive", "-N3"]}}, ("slurm", "options", 1), "-N is ours to give"),
            ({"slurm": {"options": ["--time=3"]}}, ("slurm", "options", 0), "--time is ours to give"),
            (
                {"slurm": {"nodes": 1, "gpus_per_node": "2"}, "gpus_per_task": 1, "workers": 3},
                ("gpus_per_task",),
                "need 3 GPUs on a node, but 2 are asked for there",
            ),
        ],
    )
    def test_each(self, values: dict[str, Any], path: tuple[str | int, ...], words: str) -> None:
        (flaw,) = refused(**values)
        assert (flaw.path, words in flaw.message) == (path, True)

    @pytest.mark.parametrize(
        ("time", "seconds"),
        [("5", 300), ("5:30", 330), ("1:00:00", 3600), ("2-0", 172_800), ("1-12:30", 131_400), ("0", None)],
    )
    def test_times(self, time: str, seconds: int | None) -> None:
        assert contradictions.seconds(time) == seconds


class TestQueue:
    def test_jobs(self) -> None:
        text = "7|RUNNING|None|n1|2026-11-26T10:00:00\n8_2|PENDING|Resources|n/a|N/A\nslurm says something else\n"
        running, waiting = queue.parse(text).values()
        assert (running.job, running.node, running.waits) == ("7", "n1", False)
        assert running.words == "job 7 is running on n1"
        assert waiting.words == "job 8_2 is pending (Resources): it waits for nodes to be free"

    def test_a_reason_that_is_not_known_is_told_as_it_is(self) -> None:
        (one,) = queue.parse("8|PENDING|NewReason|n/a|2026-11-27T10:00:00").values()
        assert one.words == "job 8 is pending (NewReason); Slurm expects it to start at 2026-11-27T10:00:00"


class TestSite:
    TEXT = "main*|up|1-00:00:00|4|1/3/0/4|8|64000|(null)\ngpu|up|infinite|2|2/0/0/2|16|128000+|gpu:2\ngpu|up|infinite|1|0/1/0/1|8|64000|gpu:4\n"

    def test_kinds_of_nodes_are_put_together(self) -> None:
        main, gpu = site.parse(self.TEXT)
        assert (main.usual, main.nodes, main.idle, main.gpus) == (True, 4, 3, "")
        assert (gpu.nodes, gpu.idle, gpu.cores, gpu.memory, gpu.gpus) == (3, 1, 8, 64_000, "gpu:2, gpu:4")

    @pytest.mark.parametrize(
        ("slurm", "check", "state"),
        [
            ({"time": "2-0"}, "time", "bad"),
            ({"nodes": 4}, "nodes", "warn"),
            ({"nodes": 5}, "nodes", "bad"),
            ({"partition": "gpu", "nodes": 2}, "nodes", "warn"),
            ({"cpus_per_task": 9}, "cores", "bad"),
            ({"gpus_per_node": "1"}, "gpus", "bad"),
            ({"partition": "none"}, "partition", "bad"),
        ],
    )
    def test_what_it_cannot_give(self, slurm: dict[str, Any], check: str, state: str) -> None:
        (finding,) = site.findings(config(slurm=slurm, workers=slurm.get("nodes", 1)), site.parse(self.TEXT))
        assert (finding.check, finding.state) == (check, state)
