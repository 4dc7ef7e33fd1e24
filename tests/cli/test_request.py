from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from launcher.cli import request
from launcher.config import ClusterConfig, Command, Module, Program, Script
from launcher.errors import ConfigError, RequestError
from launcher.layers import build


@click.command(cls=request.RequestCommand)
@click.option("-m", "module", is_flag=True)
@request.options
@click.pass_context
def probe(ctx: click.Context, /, module: bool, **given: Any) -> ClusterConfig:
    return build(*request.layers(request.command_of(ctx, module=module), ctx.meta.get("file"), **given))


def parse(*args: str) -> ClusterConfig:
    config: ClusterConfig = probe.main(list(args), standalone_mode=False)
    return config


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cluster.json").write_text('{"script": "file.py", "args": ["--lr", "1"], "workers": 3, "env": {"A": "1"}}')


class TestCommand:
    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            (["train.py"], Script("train.py")),
            (["-n", "2", "train.py", "--lr", "0.1"], Script("train.py", ("--lr", "0.1"))),
            (["train.py", "-n", "7", "--workers=9"], Script("train.py", ("-n", "7", "--workers=9"))),
            (["train.py", "--", "x"], Script("train.py", ("--", "x"))),
            (["train.py", "-h", "--help"], Script("train.py", ("-h", "--help"))),
            (["-m", "a.b", "-n", "7"], Module("a.b", ("-n", "7"))),
            (["-n", "2", "-m", "a.b"], Module("a.b")),
            (["-m", "-n", "2", "a.b", "c"], Module("a.b", ("c",))),
            (["--", "make", "-j", "2"], Program(("make", "-j", "2"))),
            (["-n", "2", "--", "echo", "--", "x"], Program(("echo", "--", "x"))),
            (["--", "jq", "a.json"], Program(("jq", "a.json"))),
            (["--", "cluster.json"], Program(("cluster.json",))),
            (["train.py", "cluster.json"], Script("train.py", ("cluster.json",))),
            (["cluster.json"], Script("file.py", ("--lr", "1"))),
            (["cluster.json", "-n", "2"], Script("file.py", ("--lr", "1"))),
            (["-n", "2", "cluster.json"], Script("file.py", ("--lr", "1"))),
            (["cluster.json", "other.py", "x"], Script("other.py", ("x",))),
            (["cluster.json", "-n", "2", "other.py"], Script("other.py")),
            (["cluster.json", "-m", "a.b"], Module("a.b")),
            (["cluster.json", "--", "make", "-n"], Program(("make", "-n"))),
        ],
    )
    def test_options_end_where_it_begins(self, args: list[str], expected: Command) -> None:
        assert parse(*args).command == expected

    def test_nothing_to_run(self) -> None:
        with pytest.raises(ConfigError, match="nothing to run"):
            parse("-n", "2")

    def test_a_module_without_a_name(self) -> None:
        with pytest.raises(click.UsageError, match="-m needs the name of a module"):
            parse("-m")

    @pytest.mark.parametrize("args", [["--wat", "train.py"], ["-n", "two", "train.py"], ["-n"]])
    def test_options_that_are_wrong(self, args: list[str]) -> None:
        with pytest.raises(click.UsageError):
            parse(*args)

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(RequestError, match=r"absent\.json: no such file"):
            parse("absent.json")


class TestSettings:
    @pytest.mark.parametrize(
        ("args", "name", "value"),
        [
            (["-n", "2"], "workers", 2),
            (["--workers", "2"], "workers", 2),
            (["--chief", "1"], "chief", 1),
            (["--evaluator", "1"], "evaluator", 1),
            (["--ps", "2"], "ps", 2),
            (["--name", "mine"], "name", "mine"),
            (["--python", "/py"], "python", "/py"),
            (["--cwd", "/d"], "cwd", "/d"),
            (["-e", "A=1", "--env", "B=x=y"], "env", {"A": "1", "B": "x=y"}),
            (["-e", "A="], "env", {"A": ""}),
            (["-e", "A", "-e", "B", "-e", "A"], "forward", ("A", "B")),
            (["--ports", "20000-20010"], "ports", (20000, 20010)),
            (["--no-partition"], "partition", False),
            (["--partition"], "partition", True),
            (["--gpus-per-task", "0"], "gpus_per_task", 0),
            (["--private"], "private", True),
            (["--output", "chief"], "output", "chief"),
            (["--grace", "0"], "grace", 0.0),
            (["--timeout", "1.5"], "timeout", 1.5),
            (["--run-dir", "/r"], "run_dir", "/r"),
            (["--checkpoint-dir", "/c"], "checkpoint_dir", "/c"),
        ],
    )
    def test_each_option(self, args: list[str], name: str, value: object) -> None:
        config = parse(*args, "train.py")
        assert getattr(config, name) == value
        flag = {"workers": "-n", "forward": "--env"}.get(name, "--" + name.replace("_", "-"))
        assert config.origins[name] == flag

    def test_what_is_not_given_is_the_default(self) -> None:
        config = parse("train.py")
        assert set(config.origins.values()) == {"default", request.COMMAND_LINE}
        assert config.origins["command"] == request.COMMAND_LINE

    def test_they_override_the_file(self) -> None:
        config = parse("cluster.json", "-n", "2", "-e", "B=2")
        assert (config.workers, dict(config.env)) == (2, {"A": "1", "B": "2"})
        assert (config.origins["workers"], config.origins["command"]) == ("-n", "cluster.json")

    def test_a_fault_names_its_flag(self) -> None:
        with pytest.raises(ConfigError, match="-n: must be at least 1"):
            parse("-n", "0", "train.py")
        with pytest.raises(ConfigError, match="--evaluator: must be at most 1"):
            parse("--evaluator", "2", "train.py")
