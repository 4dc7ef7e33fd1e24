from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from launcher.config import ClusterConfig, Command, Function, HostSpec, Module, Program, Script, Trainer
from launcher.errors import ConfigError, RequestError
from launcher.keys import FILE, JOBS
from launcher.layers import Layer, build, read_file
from launcher.schema import walk

EXAMPLE = Path(__file__).parents[1] / "cluster.example.json"
HERE = (HostSpec("127.0.0.1"),)


def in_file(**values: object) -> Layer:
    return Layer("cluster.json", {"script": "train.py"} | values)


def on_command_line(values: dict[str, object], **origins: str) -> Layer:
    return Layer("command line", values, origins)


def faults(*layers: Layer) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(*layers)
    return [str(fault) for fault in caught.value.faults]


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "cluster.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class TestBuild:
    def test_a_script_is_all_that_is_needed(self) -> None:
        config = build(Layer("cluster.json", {"script": "train.py"}))
        assert config == ClusterConfig(
            command=Script("train.py"),
            name="train",
            engine="local",
            hosts=HERE,
            workers=1,
            origins=dict.fromkeys((each.name for each in fields(ClusterConfig) if each.name != "origins"), "default")
            | {"command": "cluster.json"},
        )

    def test_the_defaults_of_the_table_are_those_of_the_class(self) -> None:
        documented = {key.name: key.default for _, key in walk(FILE)}
        given = build(in_file())
        bare = ClusterConfig(command=given.command, name="", engine="", hosts=(), workers=1)
        for each in fields(ClusterConfig):
            if documented.get(each.name) is not None:
                assert getattr(given, each.name) == getattr(bare, each.name)

    def test_every_key_of_the_table_reaches_the_configuration(self) -> None:
        attributes = {each.name for each in fields(ClusterConfig)} - {"origins"}
        flat = {key.name for key in (*FILE.keys, *JOBS.keys)} - {"$schema", "script", "module", "args", "jobs"}
        assert flat == attributes

    def test_the_example(self) -> None:
        config = build(read_file(EXAMPLE))
        assert config.workers == 10
        assert config.engine == "ssh"
        assert config.evaluator == 1
        assert config.hosts[1] == HostSpec("gpu2.example.org", 4, gpus=("0", "1", "2", "3"))
        assert config.hosts[2].cores == 16
        assert config.ports == (20000, 20063)
        assert config.command == Script("train.py", ("--epochs", "90", "--global-batch", "2560"))
        assert config.origins["workers"] == str(EXAMPLE)

    def test_it_is_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            build(in_file()).workers = 2  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("values", "attribute", "expected"),
        [
            ({"hosts": [{"address": "a"}, {"address": "b", "workers": 3}]}, "workers", 4),
            ({"hosts": [{"address": "a"}, {"address": "b"}], "workers": 8}, "workers", 8),
            ({"hosts": [{"address": "localhost"}]}, "engine", "local"),
            ({"hosts": [{"address": "localhost"}, {"address": "b"}]}, "engine", "ssh"),
            ({"hosts": [{"address": "b"}], "engine": "other"}, "engine", "other"),
            ({"hosts": [{"address": "a", "cores": [3, 1]}]}, "hosts", (HostSpec("a", cores=(3, 1)),)),
            ({"hosts": [{"address": "fe80::1%eth0"}]}, "hosts", (HostSpec("fe80::1%eth0"),)),
            ({"ports": "20000-20001"}, "ports", (20000, 20001)),
            ({"ports": [20000, 20000]}, "ports", (20000, 20000)),
            ({"grace": 0}, "grace", 0.0),
            ({"timeout": 0.5}, "timeout", 0.5),
            ({"jobs": {"ps": 2}}, "ps", 2),
            ({"env": {"EMPTY": ""}}, "env", {"EMPTY": ""}),
            ({"args": ["--tag", ""]}, "command", Script("train.py", ("--tag", ""))),
            ({"private": True, "hosts": [{"address": "::1"}]}, "private", True),
        ],
    )
    def test_values(self, values: dict[str, object], attribute: str, expected: object) -> None:
        assert getattr(build(in_file(**values)), attribute) == expected

    @pytest.mark.parametrize(
        ("values", "command", "name"),
        [
            ({"script": "src/my train.py", "args": ["-x"]}, Script("src/my train.py", ("-x",)), "my-train"),
            ({"script": "/"}, Script("/"), "run"),
            ({"module": "pkg.train"}, Module("pkg.train"), "train"),
            ({"module": "worker", "args": ["digits"]}, Module("worker", ("digits",)), "digits"),
            ({"module": "worker", "args": ["--help"]}, Module("worker", ("--help",)), "worker"),
            ({"command": ["/bin/sh", ""]}, Program(("/bin/sh", "")), "sh"),
            ({"script": "t" * 200}, Script("t" * 200), "t" * 100),
        ],
    )
    def test_a_name_comes_from_the_command(self, values: dict[str, object], command: Command, name: str) -> None:
        config = build(Layer("cluster.json", values))
        assert (config.command, config.name) == (command, name)

    def test_our_trainer_comes_from_the_command_line_alone(self) -> None:
        flags = on_command_line({"task": "digits", "args": ["--epochs", "2"]}, task="TASK", args="ARGS")
        assert build(flags).command == Trainer("digits", ("--epochs", "2"))
        assert build(flags).name == "digits"
        assert faults(Layer("cluster.json", {"task": "digits", "script": "a.py"}))[0].startswith("$.task: unknown key")

    def test_a_function_comes_from_tests_alone(self) -> None:
        flags = Layer("tf_cluster()", {"function": "f.pickle"}, {"function": "function="})
        assert (build(flags).command, build(flags).name) == (Function("f.pickle"), "f")
        assert faults(Layer("cluster.json", {"function": "f", "script": "a"}))[0].startswith("$.function: unknown key")


class TestLayers:
    def test_the_later_wins_key_by_key(self) -> None:
        config = build(in_file(output="chief", grace=5), on_command_line({"output": "none"}, output="--output"))
        assert (config.output, config.grace) == ("none", 5.0)
        assert (config.origins["output"], config.origins["grace"]) == ("--output", "cluster.json")

    def test_the_environment_is_won_name_by_name(self) -> None:
        file = in_file(env={"A": "1", "B": "1", "C": "1"}, forward=["D", "E"])
        flags = on_command_line({"env": {"B": "2", "D": "2"}, "forward": ["C", "F"]}, env="--env", forward="--forward")
        config = build(file, flags)
        assert config.env == {"A": "1", "B": "2", "D": "2"}
        assert config.forward == ("E", "C", "F")
        assert config.origins["env"] == "cluster.json, --env"

    def test_jobs_are_won_name_by_name(self) -> None:
        flags = on_command_line({"jobs": {"evaluator": 1}}, **{"jobs.evaluator": "--evaluator"})
        config = build(in_file(jobs={"chief": 1, "evaluator": 0}), flags)
        assert (config.chief, config.evaluator) == (1, 1)
        assert (config.origins["chief"], config.origins["evaluator"]) == ("cluster.json", "--evaluator")

    def test_a_command_replaces_the_whole_command_below(self) -> None:
        config = build(in_file(args=["--old"]), on_command_line({"module": "pkg"}, module="-m"))
        assert config.command == Module("pkg")
        assert config.origins["command"] == "-m"

    def test_arguments_alone_replace_the_arguments_below(self) -> None:
        config = build(in_file(args=["--old"]), on_command_line({"args": ["--new"]}, args="ARGS"))
        assert config.command == Script("train.py", ("--new",))
        assert config.origins["command"] == "cluster.json, ARGS"

    def test_hosts_are_replaced_whole(self) -> None:
        file = in_file(hosts=[{"address": "a", "workers": 2}, {"address": "b"}])
        assert build(file, on_command_line({"hosts": [{"address": "c"}]}, hosts="-H")).hosts == (HostSpec("c"),)

    def test_workers_above_hosts_are_spread_evenly(self) -> None:
        file = in_file(hosts=[{"address": "a", "workers": 3, "gpus": 1}, {"address": "b", "workers": 1}])
        config = build(file, on_command_line({"workers": 8}, workers="-n"))
        assert config.hosts == (HostSpec("a", gpus=1), HostSpec("b"))
        assert (config.workers, config.origins["workers"]) == (8, "-n")

    def test_hosts_with_numbers_replace_the_workers_below(self) -> None:
        flags = on_command_line({"hosts": [{"address": "a", "workers": 3}]}, hosts="-H")
        config = build(in_file(workers=8), flags)
        assert (config.workers, config.origins["workers"]) == (3, "-H")

    def test_hosts_without_numbers_keep_the_workers_below(self) -> None:
        flags = on_command_line({"hosts": [{"address": "a"}, {"address": "b"}]}, hosts="-H")
        assert build(in_file(workers=8), flags).workers == 8

    def test_a_fault_is_named_where_it_was_made(self) -> None:
        file = in_file(hosts=[{"address": "a"}, {"address": "b", "workers": 0}])
        flags = on_command_line({"workers": 0, "jobs": {"chief": 2}}, workers="-n", **{"jobs.chief": "--chief"})
        with pytest.raises(ConfigError) as caught:
            build(file, flags)
        assert str(caught.value).splitlines() == [
            "cluster.json and command line: 3 faults",
            "  $.hosts[1].workers: must be at least 1, got 0",
            "  -n: must be at least 1, got 0",
            "  --chief: must be at most 1, got 2",
        ]

    def test_arguments_cannot_be_added_to_a_command_below(self) -> None:
        file = Layer("cluster.json", {"command": ["make"]})
        assert faults(file, on_command_line({"args": ["x"]}, args="ARGS")) == [
            "ARGS: cannot stand beside command (append them to the command)"
        ]

    def test_a_fault_that_is_overridden_is_still_a_fault(self) -> None:
        assert faults(in_file(workers=0), on_command_line({"workers": 2}, workers="-n")) == [
            "$.workers: must be at least 1, got 0"
        ]

    def test_no_fault_follows_from_another(self) -> None:
        hosts: list[object] = [{"address": "a"}, {"address": "b"}, {"address": "c", "workers": 0}]
        assert len(faults(in_file(hosts=hosts, workers=6, ports="20000-20001", private=True))) == 1
        flags = on_command_line({"hosts": [{"address": "-c"}], "private": True}, hosts="-H", private="--private")
        assert len(faults(in_file(hosts=[{"address": "b"}]), flags)) == 1


FAULTS: list[tuple[dict[str, object], str]] = [
    ({"wrokers": 2}, '$.wrokers: unknown key (did you mean "workers"?)'),
    ({"evaluator": 1}, '$.evaluator: unknown key (did you mean "jobs.evaluator"?)'),
    ({"jobs": {"chef": 1}}, '$.jobs.chef: unknown key (did you mean "chief"?)'),
    ({"jobs": {"zzz": 1}}, "$.jobs.zzz: unknown key (known: chief, evaluator, ps)"),
    ({"a b": 1}, '$["a b"]: unknown key'),
    ({"workers": "4"}, '$.workers: must be an integer, got "4" (without the quotes)'),
    ({"workers": True}, "$.workers: must be an integer, got true"),
    ({"workers": 2.5}, "$.workers: must be an integer, got 2.5"),
    ({"workers": None}, "$.workers: must be an integer, got null (leave the key out for its default)"),
    ({"workers": -1}, "$.workers: must be at least 1, got -1"),
    ({"workers": 10**30}, "$.workers: must be at most 1000000, got 1000000"),
    ({"workers": float("nan")}, "$.workers: must be an integer, got NaN"),
    ({"partition": 1}, "$.partition: must be true or false, got 1"),
    ({"args": "--epochs 3"}, '$.args: must be a list of strings, got "--epochs 3"'),
    ({"args": [3]}, '$.args[0]: must be a string, got 3 (in quotes: "3")'),
    ({"args": ["a\0"]}, "$.args[0]: must not hold a NUL character, got "),
    ({"args": ["\ud800"]}, "$.args[0]: must not hold half a character (a lone surrogate), got "),
    ({"script": ""}, "$.script: must not be empty"),
    ({"module": "pkg"}, "$.module: cannot stand beside script"),
    ({"hosts": []}, "$.hosts: must be a list of hosts, got an empty one"),
    ({"hosts": ["a"]}, '$.hosts[0]: must be an object, got "a"'),
    ({"hosts": [{"workers": 1}]}, '$.hosts[0]: needs the key "address"'),
    ({"hosts": [{"address": ""}]}, "$.hosts[0].address: must not be empty"),
    (
        {"hosts": [{"address": "A"}, {"address": "b"}, {"address": "a"}]},
        "$.hosts[2].address: a is the same host as hosts[0]",
    ),
    (
        {"hosts": [{"address": "localhost"}, {"address": "127.0.0.1"}]},
        "$.hosts[1].address: 127.0.0.1 is the same host as hosts[0]",
    ),
    ({"hosts": [{"address": "a", "cores": 0}]}, "$.hosts[0].cores: must be at least 1, got 0"),
    ({"hosts": [{"address": "a", "cores": [0, 0]}]}, "$.hosts[0].cores[1]: 0 stands here twice"),
    ({"hosts": [{"address": "a", "cores": "0-3"}]}, "$.hosts[0].cores: must be an integer or a list of cores, got "),
    ({"hosts": [{"address": "a", "gpus": ["0,1"]}]}, "$.hosts[0].gpus[0]: must be the number or UUID of a GPU, got "),
    ({"workers": 5, "hosts": [{"address": "a", "workers": 4}]}, "$.workers: is 5, but the workers of the hosts add up"),
    (
        {"workers": 2, "hosts": [{"address": "a", "workers": 4}, {"address": "b"}]},
        "$.workers: is 2, but the workers of the hosts add up to 4 (leave one of the two out)",
    ),
    ({"jobs": {"chief": 2}}, "$.jobs.chief: must be at most 1, got 2"),
    ({"jobs": {"evaluator": 2}}, "$.jobs.evaluator: must be at most 1, got 2"),
    ({"jobs": {"ps": -1}}, "$.jobs.ps: must be at least 0, got -1"),
    ({"name": "a b"}, '$.name: must be 1 to 100 of A-Z a-z 0-9 . _ -, got "a b"'),
    ({"name": "a\n"}, '$.name: must be 1 to 100 of A-Z a-z 0-9 . _ -, got "a\\n"'),
    ({"env": {"": "1"}}, '$.env[""]: must not be empty'),
    ({"env": {"A=B": "1"}}, '$.env["A=B"]: must be the name of an environment variable, without =, got "A=B"'),
    ({"env": {"A\0": "1"}}, '$.env["A\\u0000"]: must not hold a NUL character'),
    ({"env": {"A": 2}}, '$.env.A: must be a string, got 2 (in quotes: "2")'),
    ({"env": {"TF_CONFIG": "{}"}}, "$.env.TF_CONFIG: TF_CONFIG is not yours to set"),
    ({"forward": ["TF_CONFIG"]}, "$.forward[0]: TF_CONFIG is not yours to set"),
    ({"forward": ["A", "A"]}, '$.forward[1]: "A" stands here twice'),
    ({"env": {"A": "1"}, "forward": ["B", "A"]}, "$.forward[1]: A is also in env (set it or forward it)"),
    ({"ports": "20000"}, '$.ports: must be two ports such as "20000-20100", got "20000"'),
    ({"ports": [1, 2, 3]}, "$.ports: must be a list of two ports, got 3 items"),
    ({"ports": [0, 70000]}, "$.ports[0]: must be at least 1, got 0"),
    ({"ports": "0-70000"}, "$.ports: must be at least 1, got 0"),
    ({"ports": "1-70000"}, "$.ports: must be at most 65535, got 70000"),
    ({"ports": "20001-20000"}, '$.ports: run backwards, from 20001 to 20000 (write "20000-20001")'),
    ({"min_workers": 2, "max_restarts": 1}, "$.min_workers: is 2, but there is only 1 to begin with"),
    ({"min_workers": 1}, "$.min_workers: is for restarts, and there are to be none (allow some with --max-restarts)"),
    ({"ports": "20000-20002", "workers": 4}, "$.ports: hold 3 ports, but one host needs 4, one for each of its tasks"),
    (
        {"ports": [20000, 20001], "workers": 4, "hosts": [{"address": "a"}, {"address": "b"}], "jobs": {"ps": 1}},
        "$.ports: hold 2 ports, but one host needs 3",
    ),
    ({"grace": -1}, "$.grace: must be at least 0 and at most 1000000000 seconds, got -1"),
    ({"grace": float("nan")}, "$.grace: must be at least 0 and at most 1000000000 seconds, got NaN"),
    ({"timeout": 0}, "$.timeout: must be more than 0 and at most 1000000000 seconds, got 0"),
    ({"timeout": float("inf")}, "$.timeout: must be more than 0 and at most 1000000000 seconds, got Infinity"),
    ({"output": "cheif"}, '$.output: must be one of all, chief, failed, none, got "cheif" (did you mean "chief"?)'),
    ({"private": True, "hosts": [{"address": "b"}]}, "$.private: is for this machine alone, but b is a host"),
]


class TestFaults:
    @pytest.mark.parametrize(("values", "expected"), FAULTS, ids=[expected[:60] for _, expected in FAULTS])
    def test_one(self, values: dict[str, object], expected: str) -> None:
        found = faults(in_file(**values))
        assert found[0].startswith(expected)

    @pytest.mark.parametrize(
        "address", ["-oProxyCommand=x", "a b", "a;b", "$(a)", "user@a", "a:22", "http://a", "é", "a\n"]
    )
    def test_an_address_is_a_name_and_nothing_else(self, address: str) -> None:
        (fault,) = faults(in_file(hosts=[{"address": address}]))
        assert fault.startswith("$.hosts[0].address: must be a host name or an IP address, with no user and no port")

    @pytest.mark.parametrize("module", ["", "-c", "a b", "a/b", "a..b", "a."])
    def test_a_module_is_a_dotted_name(self, module: str) -> None:
        (fault,) = faults(Layer("cluster.json", {"module": module}))
        assert fault.startswith("$.module: must")

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (
                {"workers": 2},
                ["$: nothing to run (give script, module or command, or name one on the command line)"],
            ),
            ({"command": []}, ["$.command: must be a list that starts with a program, got an empty one"]),
            ({"command": [""]}, ["$.command[0]: must not be empty"]),
            ({"command": ["make"], "args": ["x"]}, ["$.args: cannot stand beside command"]),
            (
                {"script": "a.py", "module": "a", "command": ["a"]},
                [
                    "$.module: cannot stand beside script",
                    "$.command: cannot stand beside script",
                    "$.command: cannot stand beside module",
                ],
            ),
        ],
    )
    def test_one_command(self, values: dict[str, object], expected: list[str]) -> None:
        assert faults(Layer("cluster.json", values)) == expected

    def test_a_command_line_that_names_nothing(self) -> None:
        (fault,) = faults(Layer("command line", {}))
        assert fault.startswith("nothing to run")
        (fault,) = faults(on_command_line({"workers": 2}, workers="-n"))
        assert fault.startswith("nothing to run")

    def test_all_at_once(self) -> None:
        found = faults(in_file(workers=0, name="", output=3, hosts=[{"address": "-a", "workers": 0}], wat=1))
        assert [fault.split(":")[0] for fault in found] == [
            "$.workers", "$.name", "$.output", "$.hosts[0].address", "$.hosts[0].workers", "$.wat",
        ]  # fmt: skip

    def test_bytes_of_an_argument_that_are_no_utf8_pass(self) -> None:
        assert build(in_file(args=["caf\udce9"])).command == Script("train.py", ("caf\udce9",))


class TestReadFile:
    def test_values_and_source(self, tmp_path: Path) -> None:
        path = written(tmp_path, '{"script": "train.py", "workers": 4.0, "grace": 0.5}')
        layer = read_file(path)
        assert layer == Layer(str(path), {"script": "train.py", "workers": 4, "grace": 0.5})
        assert build(layer).origins["workers"] == str(path)

    def test_a_byte_order_mark_is_no_fault(self, tmp_path: Path) -> None:
        assert read_file(written(tmp_path, b'\xef\xbb\xbf{"script": "a.py"}')).values == {"script": "a.py"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (" \n", ": is empty\n  `tflaunch init --force "),
            ('{\n  "workers": 2,\n}', ":3:1: not JSON: "),
            ('{"a": 1} // why', ":1:10: not JSON: Extra data\n  JSON has no comments"),
            ("{'a': 1}", "\n  strings stand in double quotes"),
            ('{"private": True}', ":1:13: not JSON: Expecting value\n  JSON writes true"),
            (b'{"a": "\xff"}', ": not UTF-8 at byte 8\n  save it as UTF-8"),
            ("[" * 100_000, ": not JSON that can be read: "),
            ('{"workers": ' + "1" * 5000 + "}", ": not JSON that can be read: "),
            ("[1]", ": 1 fault\n  $: must be an object, got a list"),
            ("3", ": 1 fault\n  $: must be an object, got 3"),
        ],
    )
    def test_what_is_no_cluster_json(self, tmp_path: Path, content: str | bytes, message: str) -> None:
        path = written(tmp_path, content)
        with pytest.raises(RequestError) as caught:
            read_file(path)
        assert str(caught.value).startswith(str(path))
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "message"), [("absent.json", "no such file\n  `tflaunch init`"), ("", "directory")]
    )
    def test_what_is_no_file(self, tmp_path: Path, name: str, message: str) -> None:
        with pytest.raises(RequestError, match=message):
            read_file(tmp_path / name)

    @pytest.mark.parametrize(
        ("content", "place"),
        [
            ('{"script": "a", "workers": 1, "workers": 2}', "$.workers"),
            ('{"script": "a", "hosts": [{"address": "a", "address": "b"}]}', "$.hosts[0].address"),
            ('{"script": "a", "env": {"A": "1", "A": "1"}}', "$.env.A"),
            ('{"script": "a", "script": "b"}', "$.script"),
        ],
    )
    def test_a_key_given_twice_is_a_fault(self, tmp_path: Path, content: str, place: str) -> None:
        assert faults(read_file(written(tmp_path, content))) == [f"{place}: is given twice"]

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_numbers_that_json_has_not(self, tmp_path: Path, number: str) -> None:
        layer = read_file(written(tmp_path, f'{{"script": "a", "timeout": {number}}}'))
        (fault,) = faults(layer)
        assert fault.startswith("$.timeout: must be more than 0")


def test_a_read_file_is_what_json_says(tmp_path: Path) -> None:
    values: dict[str, Any] = json.loads(EXAMPLE.read_text())
    assert read_file(written(tmp_path, json.dumps(values))).values == values
