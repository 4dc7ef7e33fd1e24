from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from launcher.config import ClusterConfig, Command, HostSpec, Module, Program, Script, Trainer
from launcher.placement import seats
from launcher.warmth import Warm, Warmth, decide

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def decided(command: Command, workers: int = 2, hosts: tuple[str, ...] = ("127.0.0.1",), **more: Any) -> Warmth:
    specs = tuple(HostSpec(address) for address in hosts)
    config = ClusterConfig(command=command, name="t", engine="local", hosts=specs, workers=workers, **more)
    return decide(config, [address for _, _, address in seats(config, hosts)])


def script(folder: Path, text: str) -> Script:
    (folder / "train.py").write_text(text)
    return Script("train.py")


def test_the_hosts_with_several_tasks(folder: Path) -> None:
    command = script(folder, "import tensorflow")
    assert decided(command, 3, ("a", "b")).tasks == {0, 1}
    assert decided(command, 3, ("a", "b"), warm=True).tasks == {0, 1, 2}
    assert decided(command, 3, ("a", "b"), warm=False) == decided(command, 2, ("a", "b")) == Warmth()


def test_other_programs_are_forked_where_many_share_a_core(folder: Path) -> None:
    command = script(folder, "import json")
    two = (HostSpec("a", cores=2), HostSpec("b", cores=(0, 1)), HostSpec("c"))
    config = ClusterConfig(command=command, name="t", engine="ssh", hosts=two, workers=33)
    hosts = ["a"] * 11 + ["b"] * 10 + ["c"] * 12
    assert decide(config, hosts) == Warmth(frozenset(range(11)), Warm(""))
    assert decide(replace(config, warm=False), hosts) == Warmth()
    assert decide(replace(config, warm=True), hosts) == Warmth(frozenset(range(33)))


@pytest.mark.parametrize(("cores", "least"), [(1, 5), (2, 11), (4, 41), (6, None), (64, None)])
def test_that_depends_on_the_cores(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cores: int, least: int | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    command = script(folder, "import json")
    assert decided(command, (least or 10_001) - 1) == Warmth()
    assert least is None or decided(command, least) == Warmth(frozenset(range(least)), Warm(""))


@pytest.mark.parametrize("path", ["package", "package/__main__.py"])
def test_a_folder_is_a_script_too(folder: Path, path: str) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "__main__.py").write_text("import part")
    (folder / "package" / "part.py").write_text("import keras")
    assert decided(Script(path)).tasks == {0, 1}


@pytest.mark.parametrize("name", ["package", "package.part", "package.__main__"])
@pytest.mark.parametrize("regular", [True, False])
def test_a_module(folder: Path, name: str, regular: bool) -> None:
    (folder / "package").mkdir()
    if regular:
        (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "__main__.py").write_text("from . import part")
    (folder / "package" / "part.py").write_text("import keras")
    assert decided(Module(name)).tasks == {0, 1}


@pytest.mark.parametrize("command", [Trainer("digits"), Module("worker", ("digits",))])
def test_our_trainer(command: Command) -> None:
    early = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    assert decided(command) == Warmth(frozenset({0, 1}), Warm(early=early))
    assert decided(command, env={"TF_CPP_MIN_LOG_LEVEL": "0"}).warm.early == {"KERAS_BACKEND": "tensorflow"}


def test_a_users_own_module_of_that_name(folder: Path) -> None:
    (folder / "worker.py").write_text("import os")
    assert decided(Module("worker")) == Warmth()


def test_any_other_program() -> None:
    assert decided(Program(("python", "train.py"))) == Warmth()


def test_what_decides_about_the_import(folder: Path) -> None:
    setting = "import os\n{}os.environ['KERAS_BACKEND'] = 'tensorflow'\nimport keras"
    assert decided(script(folder, setting.format(""))).warm.early == {"KERAS_BACKEND": "tensorflow"}
    late = script(folder, setting.format("if True: "))
    assert decided(late) == Warmth(
        notes=("starting cold: importing TensorFlow depends on KERAS_BACKEND in train.py:2",)
    )
    assert decided(late, warm=True).tasks == {0, 1}
