from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.agent.premises import premises

pytestmark = pytest.mark.timeout(60)


def found(folder: Path, **asked: Any) -> dict[str, Any]:
    return premises(
        **{"python": "", "modules": [], "script": "", "program": "", "env": {}, "folder": str(folder), **asked}
    )


def test_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    told = found(tmp_path, script="train.py", program="sh")
    assert (told["lacks"], told["python"]) == ({}, None)
    assert {disk["path"] for disk in told["disks"]} >= {"~", str(tmp_path)}
    assert all(disk["free"] >= 0 for disk in told["disks"])


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    nowhere = tmp_path / "none"
    assert found(nowhere, script="train.py", program="horse")["lacks"] == {"folder": str(nowhere), "program": "horse"}
    assert found(tmp_path, script="train.py")["lacks"] == {"script": "train.py"}
    assert found(tmp_path, program="./data")["lacks"] == {"program": "./data"}


def test_programs_are_looked_for_where_a_worker_would(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").touch(mode=0o755)
    assert not found(tmp_path, program="tool", env={"PATH": "bin"})["lacks"]
    assert not found(tmp_path, program="bin/tool")["lacks"]
    assert found(tmp_path, program="tool")["lacks"]


def test_an_interpreter_says_what_it_finds(tmp_path: Path) -> None:
    (tmp_path / "lib/pack").mkdir(parents=True)
    (tmp_path / "lib/pack/__main__.py").touch()
    told = found(tmp_path, python=sys.executable, modules=["pack", "absent"], env={"PYTHONPATH": "lib"})["python"]
    assert told["version"] == list(sys.version_info[:3])
    assert told["modules"]["pack"]["runs"]
    assert told["modules"]["absent"]["missing"] == "absent"


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow_cpu", "tf_nightly"])
def test_the_version_is_read_without_an_import(tmp_path: Path, package: str) -> None:
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "tensorflow_estimator-2.15.0.dist-info").mkdir()
    (tmp_path / f"{package}-2.99.0.dist-info").mkdir()
    told = found(tmp_path, python=sys.executable, modules=["tensorflow"])["python"]
    assert told["modules"]["tensorflow"]["version"] == "2.99.0"


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("#!/bin/sh\necho no good >&2; exit 3", "no good"),
        ("#!/bin/sh\nexit 3", "status 3"),
        ("#!/bin/sh\necho hello", "it does not answer within 20 s, or not as a Python does"),
        (None, "No such file or directory"),
    ],
)
def test_an_interpreter_that_is_none(tmp_path: Path, program: str | None, error: str) -> None:
    python = tmp_path / "python"
    if program is not None:
        python.write_text(program)
        python.chmod(0o755)
    assert found(tmp_path, python=str(python))["python"] == {"error": error}
