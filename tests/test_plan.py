from __future__ import annotations

import json
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher import plan as plan_module
from launcher.config import ClusterConfig, Command, Function, HostSpec, Module, Program, Script, Trainer
from launcher.errors import RequestError
from launcher.placement import Host, Task, place
from launcher.plan import CODE, HIDDEN, UNLEASED, Launch, Plan, bracketed, command_line, deciding, require_passable

BOOT = f"{CODE}/worker/start.py"
HERE = (Host("127.0.0.1"),)


def make(
    *,
    hosts: tuple[Host, ...] = HERE,
    forwarded: dict[str, str] | None = None,
    ports: dict[int, int] | None = None,
    **settings: Any,
) -> Plan:
    specs = tuple(HostSpec(host.address) for host in hosts)
    chosen: dict[str, Any] = {
        "command": Script("train.py"), "name": "t", "engine": "local", "hosts": specs, "workers": 2, **settings
    }  # fmt: skip
    config = ClusterConfig(**chosen)
    tasks = place(config, hosts)
    return plan_module.make(config, tasks, hosts, "/py", forwarded or {}, run="t-1", ports=ports)


def env_of(launch: Launch) -> dict[str, str]:
    """All variables that are set on top of the environment of its host."""
    return {"TF_CONFIG": launch.tf_config, **launch.settings}


def tf_config(launch: Launch) -> Any:
    return json.loads(launch.tf_config)


class TestCommandLine:
    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            (Script("a.py", ("-x", "1")), ("/py", BOOT, "a.py", "-x", "1")),
            (Module("a.b", ("c",)), ("/py", BOOT, "-m", "a.b", "c")),
            (Function("/call/payload.pickle"), ("/py", BOOT, "--call", "/call/payload.pickle")),
            (Trainer("digits", ("--epochs", "2")), ("/py", BOOT, "--trainer", "digits", "--epochs", "2")),
            (Program(("make", "-j")), ("make", "-j")),
        ],
    )
    def test_argv(self, command: Command, expected: tuple[str, ...]) -> None:
        assert command_line(command, "/py") == expected

    def test_the_boot_file_is_there(self) -> None:
        assert Path(BOOT).is_file()


@pytest.mark.parametrize(
    ("address", "expected"), [("a", "a"), ("10.0.0.1", "10.0.0.1"), ("::1", "[::1]"), ("[::1]", "[::1]")]
)
def test_bracketed(address: str, expected: str) -> None:
    assert bracketed(address) == expected


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        (["worker", "worker"], {0, 1}),
        (["chief", "worker", "evaluator"], {0, 1}),
        (["worker", "ps"], {0}),
        (["chief", "worker", "ps", "ps"], {0}),
    ],
)
def test_deciding(jobs: list[str], expected: set[int]) -> None:
    assert deciding([Task(number, job, 0, "a") for number, job in enumerate(jobs)]) == expected


class TestCluster:
    def test_each_task_has_its_own_place_in_the_same_cluster(self) -> None:
        first, second = make(ports={0: 2001, 1: 2002}).launches
        assert tf_config(first) == {
            "cluster": {"worker": ["127.0.0.1:2001", "127.0.0.1:2002"]},
            "task": {"type": "worker", "index": 0},
        }
        assert tf_config(second)["cluster"] == tf_config(first)["cluster"]
        assert tf_config(second)["task"] == {"type": "worker", "index": 1}

    def test_ports_that_are_not_leased_yet_have_a_stand_in(self) -> None:
        assert tf_config(make().launches[0])["cluster"]["worker"] == [f"127.0.0.1:{UNLEASED}"] * 2

    def test_ipv6_addresses_stand_in_brackets(self) -> None:
        whole = make(hosts=(Host("::1"),), workers=1, ports={0: 2001})
        assert tf_config(whole.launches[0])["cluster"]["worker"] == ["[::1]:2001"]

    def test_an_evaluator_sees_the_cluster_without_being_in_it_and_holds_no_port(self) -> None:
        *_, evaluator = make(workers=1, evaluator=1, ports={0: 2001}).launches
        assert tf_config(evaluator) == {
            "cluster": {"worker": ["127.0.0.1:2001"]},
            "task": {"type": "evaluator", "index": 0},
        }
        assert "TF_GRPC_REUSE_PORT" not in env_of(evaluator)

    @pytest.mark.parametrize(("jobs", "chief"), [({}, "worker 0"), ({"chief": 1, "ps": 1}, "chief 0")])
    def test_chief(self, jobs: dict[str, Any], chief: str) -> None:
        whole = make(**jobs)
        assert whole.tasks[whole.chief].label == chief


class TestEnvironment:
    def test_what_every_worker_is_told(self) -> None:
        launch = make(workers=1).launches[0]
        assert {name: value for name, value in env_of(launch).items() if name != "TF_CONFIG"} == {
            "TFLAUNCH_RUN": "t-1",
            "TFLAUNCH_ATTEMPT": "0",
            "TFLAUNCH_TASK": "worker:0",
            "TF_GRPC_REUSE_PORT": "1",
            "PYTHONUNBUFFERED": "1",
            "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": "1073741824",
        }
        assert launch.why.keys() == env_of(launch).keys()

    @pytest.mark.parametrize(("workers", "expected"), [(1, ["4", "4", "4"]), (4, ["1", "1", "2"])])
    def test_threads_as_many_as_cores_but_two_between_operations(self, workers: int, expected: list[str]) -> None:
        launch = make(hosts=(Host("127.0.0.1", (0, 1, 2, 3)),), workers=workers).launches[0]
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        assert [env_of(launch)[name] for name in names] == expected
        assert {launch.why[name] for name in names} == {"its share"}

    def test_what_the_owner_of_a_host_has_set_is_left_alone(self) -> None:
        host = Host("127.0.0.1", (0, 1), decided=frozenset({"OMP_NUM_THREADS", "PYTHONUNBUFFERED"}))
        env = env_of(make(hosts=(host,)).launches[0])
        assert "OMP_NUM_THREADS" not in env
        assert "PYTHONUNBUFFERED" not in env
        assert env["TF_NUM_INTRAOP_THREADS"] == "1"

    @pytest.mark.parametrize(("cores", "arenas"), [((0, 1), ["1", "1"]), ((0, 1, 2), [None, None]), ((), [None, None])])
    def test_one_arena_where_each_worker_of_a_host_has_one_core(
        self, cores: tuple[int, ...], arenas: list[str | None]
    ) -> None:
        whole = make(hosts=(Host("127.0.0.1", cores),), workers=2)
        assert [env_of(launch).get("MALLOC_ARENA_MAX") for launch in whole.launches] == arenas

    @pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
    def test_who_has_set_anything_of_malloc_has_set_all_of_it(self, name: str) -> None:
        host = Host("127.0.0.1", decided=frozenset({name}))
        env = env_of(make(hosts=(host,)).launches[0])
        assert not {name for name in env if name.startswith("MALLOC_")}
        env = env_of(make(env={name: "9"}).launches[0])
        assert [value for name, value in env.items() if name.startswith(("MALLOC_", "GLIBC_"))] == ["9"]

    def test_gpus_are_divided_even_where_the_owner_chose_them(self) -> None:
        host = Host("127.0.0.1", gpus=("2", "3"), decided=frozenset({"CUDA_VISIBLE_DEVICES"}))
        whole = make(hosts=(host,), ps=1)
        assert [env_of(launch)["CUDA_VISIBLE_DEVICES"] for launch in whole.launches] == ["2", "3", ""]

    def test_the_checkpoint_directory(self) -> None:
        launch = make(checkpoint_dir="/c", origins={"checkpoint_dir": "--checkpoint-dir"}).launches[0]
        assert env_of(launch)["TFLAUNCH_CHECKPOINT_DIR"] == "/c"
        assert launch.why["TFLAUNCH_CHECKPOINT_DIR"] == "--checkpoint-dir"

    def test_the_user_has_the_last_word(self) -> None:
        launch = make(
            env={"PYTHONUNBUFFERED": "0", "A": "mine"}, forwarded={"A": "theirs", "B": "b"}, origins={"env": "--env"}
        ).launches[0]
        assert (env_of(launch)["PYTHONUNBUFFERED"], env_of(launch)["A"], env_of(launch)["B"]) == ("0", "mine", "b")
        assert (launch.why["PYTHONUNBUFFERED"], launch.why["B"]) == ("--env", "forwarded")

    @pytest.mark.parametrize(
        "name", ["API_KEY", "GITHUB_TOKEN", "db_password", "AWS_SECRET_ACCESS_KEY", "credentials", "HTTP_AUTH"]
    )
    def test_secrets_reach_the_worker_and_nothing_that_is_shown(self, name: str) -> None:
        whole = make(env={name: "hunter2", "PLAIN": "seen"})
        launch = whole.launches[0]
        assert env_of(launch)[name] == "hunter2"
        assert launch.shown_settings()[name] == HIDDEN
        assert "hunter2" not in json.dumps(whole.as_json())
        assert launch.shown_settings()["PLAIN"] == "seen"

    def test_forwarded_values_are_hidden_whatever_they_are_called(self) -> None:
        whole = make(forwarded={"PLAIN": "hunter2"})
        assert env_of(whole.launches[0])["PLAIN"] == "hunter2"
        assert "hunter2" not in json.dumps(whole.as_json())


class TestNotes:
    def test_none_when_there_is_nothing_to_know(self) -> None:
        assert make().notes == ()

    def test_who_can_reach_the_servers(self) -> None:
        (note,) = make(hosts=(Host("127.0.0.1", exposed=("10.0.0.2", "10.0.0.1")),)).notes
        assert "10.0.0.1, 10.0.0.2" in note
        assert "--private" in note

    @pytest.mark.parametrize(("settings", "expected"), [({"workers": 3}, 1), ({}, 0), ({"ps": 1}, 0)])
    def test_gpus_that_cannot_be_shared(self, settings: dict[str, Any], expected: int) -> None:
        notes = make(hosts=(Host("127.0.0.1", gpus=("0", "1")),), **settings).notes
        assert len(notes) == expected
        assert all("3 tasks cannot share 2 GPUs" in note for note in notes)


class TestPlan:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"workers": 1}, "t: 1 worker on this machine"),
            ({"workers": 3, "chief": 1, "ps": 2}, "t: 1 chief, 3 workers, 2 ps on this machine"),
            ({"hosts": (Host("a"), Host("b")), "engine": "ssh"}, "t: 2 workers on 2 hosts"),
        ],
    )
    def test_summary(self, settings: dict[str, Any], expected: str) -> None:
        assert make(**settings).summary == expected

    def test_a_cluster_too_large_to_be_told_of(self) -> None:
        """As the kernel has it, too: a byte less is taken."""
        whole = make()
        room = 131_072 - len("TF_CONFIG=") - 1 - len(whole.launches[-1].tf_config) + len(whole.launches[-1].cluster)
        for more in (0, 1):
            cluster = " " * (room + more)
            longer = replace(whole, launches=tuple(one._replace(cluster=cluster) for one in whole.launches))
            with pytest.raises(RequestError, match="has 131,073 bytes") if more else nullcontext():
                require_passable(longer)
            with pytest.raises(OSError, match="too long") if more else nullcontext():
                subprocess.run(["true"], env=env_of(longer.launches[-1]), check=True)

    def test_as_json(self) -> None:
        whole = make(ports={0: 20001, 1: 20002}, cwd="/d", origins={"workers": "-n"})
        shown = json.loads(json.dumps(whole.as_json()))
        assert (shown["name"], shown["origins"], shown["ports"]) == ("t", {"workers": "-n"}, "any free port")
        task = shown["tasks"][1]
        assert (task["task"], task["host"], task["cwd"]) == ("worker 1", "127.0.0.1", "/d")
        assert task["argv"] == ["/py", BOOT, "train.py"]
        assert task["env"] == whole.launches[1].settings
        assert shown["cluster"] == {"worker": ["127.0.0.1:20001", "127.0.0.1:20002"]}
        assert task["why"]["TF_CONFIG"] == "tflaunch"
