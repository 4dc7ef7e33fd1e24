from __future__ import annotations

import os
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from launcher import preflight
from launcher.config import ClusterConfig, Command, HostSpec, Module, Program, Script, Trainer
from launcher.errors import ConfigError, RequestError, UnavailableError
from launcher.layers import Layer


def config(command: Command = Program(("true",)), **settings: Any) -> ClusterConfig:  # noqa: B008 - frozen
    return ClusterConfig(
        command=command, name="t", engine="local", hosts=(HostSpec("127.0.0.1"),), workers=1, **settings
    )


def refused(command: Command = Program(("true",)), **settings: Any) -> str:  # noqa: B008 - frozen
    """What the one finding says, and what to do about it."""
    [flaw] = preflight.findings(config(command, **settings))
    return flaw.message + (f"\n  {flaw.hint}" if flaw.hint else "")


def fine(command: Command = Program(("true",)), **settings: Any) -> bool:  # noqa: B008 - frozen
    return list(preflight.findings(config(command, **settings))) == []


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def program(path: Path, mode: int = 0o755) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with nothing installed."""
    folder = tmp_path_factory.mktemp("other")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


class TestScript:
    def test_one_that_is_there(self, here: Path) -> None:
        (here / "train.py").touch()
        assert fine(Script("train.py"))
        assert fine(Script(str(here / "train.py")), cwd="/")

    def test_it_is_looked_for_where_the_worker_starts(self, here: Path) -> None:
        (here / "sub").mkdir()
        (here / "sub" / "train.py").touch()
        assert fine(Script("train.py"), cwd="sub")
        assert refused(Script("train.py")) == "no such script: train.py"

    def test_a_folder_with_a_main_is_one(self, here: Path) -> None:
        (here / "pkg").mkdir()
        assert refused(Script("pkg")) == "a directory without a __main__.py is no script: pkg"
        (here / "pkg" / "__main__.py").touch()
        assert fine(Script("pkg"))

    def test_a_program_is_none_and_the_message_says_how_to_run_it(self) -> None:
        assert refused(Script("sh")) == (
            "no such script: sh\n  to run a program, put -- before it: tflaunch run -n 2 -- sh"
        )

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_one_that_may_not_be_read(self, here: Path) -> None:
        (here / "train.py").touch(mode=0)
        assert refused(Script("train.py")) == "not readable: train.py"


class TestModule:
    @pytest.fixture(autouse=True)
    def package(self, here: Path) -> None:
        for path in ("mine/__init__.py", "mine/train.py", "mine/sub/__init__.py", "mine/sub/__main__.py", "bare/a.py"):
            (here / path).parent.mkdir(exist_ok=True)
            (here / path).write_text("raise SystemExit('it was imported')\n")

    @pytest.mark.parametrize("name", ["mine.train", "mine.sub", "bare.a", "timeit", "json.tool", "unittest"])
    def test_one_that_can_be_run(self, name: str) -> None:
        assert fine(Module(name))

    @pytest.mark.parametrize(
        ("name", "missing"), [("absent", "absent"), ("mine.absent", "mine.absent"), ("mine.train.x", "mine.train.x")]
    )
    def test_one_that_is_not_there(self, here: Path, name: str, missing: str) -> None:
        message = refused(Module(name))
        assert message.startswith(f"no module named {missing}\n  looked in {here}")
        assert sys.executable in message

    @pytest.mark.parametrize("name", ["mine", "bare"])
    def test_a_package_without_a_main(self, name: str) -> None:
        assert refused(Module(name)) == f"{name} is a package and cannot be run: it has no __main__.py"

    def test_it_is_looked_for_where_the_worker_starts(self) -> None:
        assert fine(Module("train"), cwd="mine")
        assert "no module named train" in refused(Module("train"))

    def test_another_interpreter_is_asked_itself(self, here: Path, other: Path) -> None:
        assert fine(Module("mine.sub"), python=str(other))
        assert fine(Module("json.tool"), python=str(other))
        message = refused(Module("pytest"), python=str(other))
        assert message == f"no module named pytest\n  looked in {here} and where {other} looks"

    def test_our_trainer_is_found_by_the_boot_file_where_nothing_else_has_its_name(self, other: Path) -> None:
        assert fine(Module("worker"), python=str(other))

    def test_an_interpreter_that_says_nothing_of_use_is_left_to_the_workers(self, here: Path) -> None:
        assert fine(Module("absent"), python=str(program(here / "py")))


class TestProgram:
    def test_one_on_the_path(self) -> None:
        assert fine(Program(("true",)))
        assert refused(Program(("no-such-program-here",))) == "no such program on PATH: no-such-program-here"

    def test_the_path_is_the_one_the_worker_gets(self, here: Path) -> None:
        program(here / "mine")
        assert fine(Program(("mine",)), env={"PATH": str(here)})
        assert "on PATH" in refused(Program(("true",)), env={"PATH": str(here)})

    def test_one_with_a_path(self, here: Path) -> None:
        program(here / "mine")
        (here / "sub").mkdir()
        assert fine(Program(("./mine",)))
        assert fine(Program(("../mine",)), cwd="sub")
        assert refused(Program(("./absent",))) == "no such program: ./absent"

    def test_one_that_may_not_be_run(self, here: Path) -> None:
        program(here / "mine", mode=0o644)
        assert refused(Program(("./mine",))) == "not executable: ./mine\n  chmod +x ./mine, or name its interpreter"
        assert refused(Program((str(here),))).startswith(f"not executable: {here}")


class TestTrainer:
    def test_ours_and_the_users_own(self, here: Path) -> None:
        assert fine(Trainer("digits"))
        assert refused(Trainer("digts")).startswith("no training is called digts\n  did you mean")
        assert refused(Trainer("zebra")).endswith(
            "there is digits, linear, mnist, or a task of your own as FILE.py:NAME"
        )
        assert refused(Trainer("mine.py:task")) == "no such file: mine.py"
        (here / "mine.py").touch()
        assert fine(Trainer("mine.py:task"))

    def test_it_needs_tensorflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", [])
        with pytest.raises(UnavailableError, match=r"TensorFlow is not installed for .*\n.*pip install"):
            preflight.require(config(Trainer("digits")))

    def test_another_interpreter_is_asked_itself(self, other: Path) -> None:
        with pytest.raises(UnavailableError, match=f"TensorFlow is not installed for {other}"):
            preflight.require(config(Trainer("digits"), python=str(other)))

    def test_a_module_of_the_users_with_our_trainers_name_needs_no_tensorflow(self, here: Path, other: Path) -> None:
        (here / "worker.py").touch()
        preflight.require(config(Module("worker"), python=str(other)))
        (here / "worker.py").unlink()
        with pytest.raises(UnavailableError):
            preflight.require(config(Module("worker"), python=str(other)))

    def test_where_it_is_installed_all_is_well(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (here / "tensorflow").mkdir()
        (here / "tensorflow" / "__init__.py").touch()
        monkeypatch.setattr(sys, "path", [str(here)])
        preflight.require(config(Trainer("digits")))


class TestSurroundings:
    def test_the_working_directory(self, here: Path) -> None:
        assert refused(cwd="absent") == "no such working directory: absent"
        (here / "file").touch()
        assert refused(cwd="file") == "no such working directory: file"

    def test_the_interpreter(self, here: Path) -> None:
        program(here / "py")
        assert fine(python="./py")
        assert fine(python=sys.executable)
        assert refused(python="./absent") == "no such Python interpreter: ./absent"
        old = program(here / "old")
        old.write_text('#!/bin/sh\necho \'{"version": [3, 9, 2], "modules": {}}\'\n')
        assert refused(python="./old") == "workers need Python 3.11 or later, not 3.9.2: ./old"
        assert refused(python="python9.9") == "no such Python interpreter: python9.9"

    def test_ports_that_need_a_privilege(self, monkeypatch: pytest.MonkeyPatch) -> None:
        allowed = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        first = int(allowed.read_text()) if allowed.exists() else 1024
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert fine(ports=(first, first + 10))
        if first > 1:
            assert refused(ports=(first - 1, first + 10)).startswith(f"ports below {first} need a privilege")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert fine(ports=(1, 10))


class TestInterpreter:
    def test_the_launchers_own_unless_told(self) -> None:
        assert preflight.interpreter(config()) == sys.executable
        assert preflight.interpreter(config(python="/py")) == "/py"


class TestAllAtOnce:
    def test_what_is_wrong_by_itself_and_what_names_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOT_SET", raising=False)
        monkeypatch.setenv("SET", "1")
        values = {"script": "absent.py", "engine": "locla", "forward": ["SET", "NOT_SET"], "grace": -1, "name": "a b"}
        with pytest.raises(ConfigError) as caught:
            preflight.checked(Layer("cluster.json", values))
        assert {fault.path for fault in caught.value.faults} == {
            "$.script", "$.engine", "$.forward[1]", "$.grace", "$.name",
        }  # fmt: skip
        assert 'did you mean "local"?' in str(caught.value)

    def test_a_directory_that_is_not_there_hides_what_would_be_in_it(self) -> None:
        with pytest.raises(ConfigError) as caught:
            preflight.checked(Layer("cluster.json", {"script": "train.py", "cwd": "absent"}))
        assert [fault.path for fault in caught.value.faults] == ["$.cwd"]

    def test_gpus_that_are_not_there(self, here: Path) -> None:
        (here / "train.py").touch()
        with pytest.raises(ConfigError) as caught:
            preflight.checked(Layer("cluster.json", {"script": "train.py", "gpus_per_task": 64}))
        assert [fault.path for fault in caught.value.faults] == ["$.gpus_per_task"]

    def test_one_that_a_command_line_names_is_said_as_it_is(self) -> None:
        with pytest.raises(ConfigError) as caught:
            preflight.checked(Layer("command line", {"script": "absent.py"}, {"script": "command line"}))
        assert str(caught.value) == "no such script: absent.py"

    def test_other_hosts_are_not_judged_from_here(self) -> None:
        values = {"script": "absent.py", "hosts": [{"address": "h1"}, {"address": "h2"}], "forward": ["NOT_SET"]}
        assert preflight.checked(Layer("cluster.json", values)).engine == "ssh"


class TestForwarded:
    def test_the_values_of_the_moment(self) -> None:
        assert preflight.forwarded(config(forward=("A", "B")), {"A": "1", "B": "", "C": "3"}) == {"A": "1", "B": ""}

    def test_all_that_are_missing_are_named(self) -> None:
        with pytest.raises(RequestError, match=r"not set here: A, C\n.*--env NAME=VALUE"):
            preflight.forwarded(config(forward=("A", "B", "C")), {"B": "2"})
