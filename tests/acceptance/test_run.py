"""What each task is given, and how the command line is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Command

TELL = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv[1:], "tf_config": json.loads(os.environ["TF_CONFIG"]), "env": dict(os.environ),
    "cores": sorted(os.sched_getaffinity(0)), "pid": os.getpid(), "cwd": os.getcwd(),
}))
"""


def told(tflaunch: Command, *args: str, env: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Run TELL and return what each task told, by slug."""
    ended = tflaunch("run", *args, tflaunch.script(TELL), "--lr", "0.1", env=env)
    assert ended.status == 0, ended.err
    return {
        one["log"].rpartition("/")[2][:-4]: json.loads(ended.log(one["log"].rpartition("/")[2][:-4]))
        for one in ended.outcome["tasks"]
    }


def test_a_script_gets_its_arguments_and_its_place_in_the_cluster(tflaunch: Command) -> None:
    tasks = told(tflaunch, "-n", "3")
    workers = tasks["worker-0"]["tf_config"]["cluster"]["worker"]
    assert [tasks[f"worker-{i}"]["tf_config"]["task"] for i in range(3)] == [
        {"type": "worker", "index": i} for i in range(3)
    ]
    assert len(set(workers)) == 3
    assert all(task["argv"] == ["--lr", "0.1"] for task in tasks.values())
    assert all(task["tf_config"]["cluster"] == {"worker": workers} for task in tasks.values())
    assert {task["env"]["TF_GRPC_REUSE_PORT"] for task in tasks.values()} == {"1"}
    assert {task["env"]["PYTHONUNBUFFERED"] for task in tasks.values()} == {"1"}


@pytest.mark.parametrize("spare", [0, 1])
def test_a_script_is_compiled_once_for_more_tasks_than_cores(tflaunch: Command, spare: int) -> None:
    cores = os.cpu_count() or 1
    script = tflaunch.script("print(b'TFLAUNCH_COMPILED=' in open('/proc/self/environ', 'rb').read())")
    ended = tflaunch("run", "-n", str(cores), "--evaluator", str(spare), script)
    assert ended.status == 0, ended.err
    assert ended.run_dir is not None
    assert ended.log("worker-0") == f"{spare == 1}\n".encode()
    assert (ended.run_dir / "program.pyc").exists() == (spare == 1)


def test_every_job_that_tf_config_knows(tflaunch: Command) -> None:
    tasks = told(tflaunch, "-n", "2", "--chief", "1", "--evaluator", "1")
    assert set(tasks) == {"chief-0", "worker-0", "worker-1", "evaluator-0"}
    cluster = tasks["evaluator-0"]["tf_config"]["cluster"]
    assert {job: len(addresses) for job, addresses in cluster.items()} == {"chief": 1, "worker": 2}
    assert tasks["evaluator-0"]["tf_config"]["task"] == {"type": "evaluator", "index": 0}


def test_parameter_servers_are_stopped_when_the_chief_is_done(tflaunch: Command) -> None:
    script = tflaunch.script(
        "import os, time\nif not os.environ['TFLAUNCH_TASK'].startswith('chief'): time.sleep(1000)"
    )
    ended = tflaunch("run", "-n", "1", "--chief", "1", "--ps", "2", script)
    assert ended.status == 0, ended.err
    assert {one["task"]: one["fate"] for one in ended.outcome["tasks"]} == {
        "chief 0": "done", "worker 0": "stopped", "ps 0": "stopped", "ps 1": "stopped",
    }  # fmt: skip


def test_modules_programs_and_files(tflaunch: Command) -> None:
    tflaunch.script("", "package/__init__.py")
    tflaunch.script("import sys; print('module', __name__, sys.argv[1:])", "package/inner.py")
    assert tflaunch("run", "-m", "package.inner", "-x", "1").lines == ["worker 0 | module __main__ ['-x', '1']"]
    assert tflaunch("run", "--", "echo", "-n", "any").lines == ["worker 0 | any"]
    tflaunch.script(json.dumps({"command": ["echo", "from the file"], "workers": 2, "output": "chief"}), "cluster.json")
    assert tflaunch("run", "cluster.json").lines == ["worker 0 | from the file"]
    assert len(tflaunch("run", "cluster.json", "--output", "all").lines) == 2
    assert tflaunch("run", "-n", "1", "cluster.json", "--", "echo", "from the flags").lines == [
        "worker 0 | from the flags"
    ]


def test_cores_are_shared_out_and_threads_limited_to_them(tflaunch: Command) -> None:
    tasks = told(tflaunch, "-n", "2")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        assert sorted([*tasks["worker-0"]["cores"], *tasks["worker-1"]["cores"]]) == cores
    for task in tasks.values():
        assert task["env"]["OMP_NUM_THREADS"] == task["env"]["TF_NUM_INTRAOP_THREADS"] == str(len(task["cores"]))
        assert int(task["env"]["TF_NUM_INTEROP_THREADS"]) >= 2


def test_no_partition_leaves_cores_and_threads_alone(tflaunch: Command) -> None:
    task = told(tflaunch, "-n", "2", "--no-partition")["worker-0"]
    assert task["cores"] == sorted(os.sched_getaffinity(0))
    assert "OMP_NUM_THREADS" not in task["env"] or "OMP_NUM_THREADS" in os.environ


def test_what_the_user_has_set_is_never_overridden(tflaunch: Command) -> None:
    tasks = told(
        tflaunch, "-n", "2", "-e", "TF_NUM_INTEROP_THREADS=9", env={"OMP_NUM_THREADS": "7", "PYTHONUNBUFFERED": ""}
    )
    assert {task["env"]["OMP_NUM_THREADS"] for task in tasks.values()} == {"7"}
    assert {task["env"]["TF_NUM_INTEROP_THREADS"] for task in tasks.values()} == {"9"}
    assert {task["env"]["PYTHONUNBUFFERED"] for task in tasks.values()} == {""}


def test_what_a_worker_has_freed_it_need_not_ask_the_kernel_for_again(tflaunch: Command) -> None:
    script = tflaunch.script(
        "from resource import RUSAGE_SELF, getrusage\n"
        "def faults():\n"
        "    before = getrusage(RUSAGE_SELF).ru_minflt\n"
        "    bytes(bytearray(40 << 20))\n"
        "    return getrusage(RUSAGE_SELF).ru_minflt - before\n"
        "faults()\n"
        "print(faults())"
    )
    kept, given_back = (
        tflaunch("run", "-n", "1", script),
        tflaunch("run", "-n", "1", "-e", "MALLOC_ARENA_MAX=2", script),
    )
    assert int(kept.out.rpartition(b"|")[2]) < 100
    assert int(given_back.out.rpartition(b"|")[2]) > 1_000


def test_gpus_that_the_user_made_visible_are_shared_out(tflaunch: Command) -> None:
    tasks = told(tflaunch, "-n", "2", env={"CUDA_VISIBLE_DEVICES": "3,5,7,9"})
    assert [tasks[f"worker-{i}"]["env"]["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["3,5", "7,9"]


def test_secrets_and_forwarded_values_reach_the_worker_and_no_file(tflaunch: Command) -> None:
    settings = ["-e", "PLAIN=visible", "-e", "API_TOKEN=hush-1", "-e", "FORWARDED"]
    script = tflaunch.script("import os; assert os.environ['API_TOKEN'] + os.environ['FORWARDED'] == 'hush-1hush-2'")
    ended = tflaunch("run", *settings, script, env={"FORWARDED": "hush-2"})
    assert ended.status == 0, ended.err
    assert ended.run_dir is not None
    kept = b"".join(path.read_bytes() for path in ended.run_dir.rglob("*") if path.is_file())
    assert b"visible" in kept
    assert b"hush" not in kept + ended.out + ended.err.encode()


@pytest.mark.parametrize("name", ["worker", "launcher"])
def test_modules_of_the_user_are_never_shadowed(tflaunch: Command, name: str) -> None:
    tflaunch.script("whose = 'mine'", f"{name}.py")
    script = tflaunch.script(f"import {name}; print({name}.whose)")
    assert tflaunch("run", script).lines == ["worker 0 | mine"]
    assert tflaunch("run", "-m", "script").lines == ["worker 0 | mine"]


def test_ours_are_found_where_the_user_has_none(tflaunch: Command) -> None:
    script = tflaunch.script("import sys, worker; print(worker.__doc__ is not None, 'launcher' in sys.modules)")
    assert tflaunch("run", script).lines == ["worker 0 | True False"]


def test_the_run_directory(tflaunch: Command) -> None:
    ended = tflaunch("run", "-n", "2", "--name", "named", "--", "echo", "hello")
    assert ended.run_dir is not None
    assert ended.run_dir.name.startswith("named-")
    assert ended.run_dir.stat().st_mode & 0o777 == 0o700
    assert (ended.run_dir.parent / "latest").resolve() == ended.run_dir.resolve()
    assert {path.name for path in ended.run_dir.iterdir()} == {
        "run.json",
        "events.jsonl",
        "outcome.json",
        "attempt-0",
        "agents",
    }
    assert ended.log("worker-0") == ended.log("worker-1") == b"hello\n"
    kinds = [json.loads(line)["event"] for line in (ended.run_dir / "events.jsonl").read_text().splitlines()]
    assert kinds[:2] == ["AgentReady", "PortsLeased"]
    assert kinds.count("TaskExited") == 2
    other = tflaunch("run", "--run-dir", "runs/deeper", "--", "true")
    assert other.status == 0
    assert len(list((tflaunch.cwd / "runs" / "deeper").glob("true-*"))) == 1


def test_plan_shows_what_run_does_and_starts_nothing(tflaunch: Command) -> None:
    args = ["-n", "2", "--evaluator", "1", "-e", "A=1", tflaunch.script(TELL), "--lr", "1"]
    planned = json.loads(tflaunch("plan", "--json", *args).out)
    assert tflaunch.runs() == set()
    ran = tflaunch("run", *args)
    assert ran.run_dir is not None
    recorded = json.loads((ran.run_dir / "run.json").read_text())
    assert set(recorded.pop("versions")) == {"tflaunch", "agent on 127.0.0.1"}
    assert recorded.pop("tree") is None
    for plan in (planned, recorded):
        plan["cluster"] = {job: len(addresses) for job, addresses in plan["cluster"].items()}
        for task in plan["tasks"]:
            task["env"].pop("TFLAUNCH_RUN")
    assert planned["cluster"] == {"worker": 2}
    assert planned == recorded


def test_help_names_every_command(tflaunch: Command) -> None:
    text = tflaunch("--help").out.decode()
    assert all(name in text for name in ("run", "train", "plan", "explain", "init", "schema"))


def test_what_init_writes_runs(tflaunch: Command) -> None:
    assert tflaunch("init").status == 0
    tflaunch.script("print('trained')", "train.py")
    assert sorted(tflaunch("run", "cluster.json").lines) == ["worker 0 | trained", "worker 1 | trained"]


def test_the_example_of_several_hosts_can_be_planned(tflaunch: Command) -> None:
    example = Path(__file__).parents[2] / "cluster.example.json"
    planned = json.loads(tflaunch("plan", "--json", str(example)).out)
    assert len({task["host"] for task in planned["tasks"]}) == 3
