"""``tflaunch check`` on this machine; tests/hosts/test_check.py has others."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from launcher.cli.check import check
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

# As on its hosts: looked for, and not imported, which takes seconds.
needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def invoke(*args: str) -> Result:
    return CliRunner().invoke(check, args, standalone_mode=False)


def test_this_machine(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"workers": 2, "command": ["true"]}')
    result = invoke("cluster.json")
    assert result.return_value == 0, result.output
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[1].startswith("127.0.0.1  ")
    assert "1 of 1" in lines[1]
    assert lines[-1] == "a run can start"
    # Nothing is kept of it.
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def test_for_a_program() -> None:
    found = json.loads(invoke("-n", "3", "--json", "--", "true").stdout)
    assert found["fine"]
    assert [each["state"] for each in found["dialled"]] == ["ok"] * 3
    assert {each["host"] for each in found["findings"]} == {"127.0.0.1"}


@needs_tensorflow
def test_a_file_may_leave_open_what_is_run(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"workers": 2}')
    assert invoke("cluster.json").return_value == 0


def test_a_request_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"wrokers": 2}')
    result = invoke("cluster.json")
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_status == 2


def test_an_interpreter_without_tensorflow(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    (tmp_path / "train.py").touch()
    result = invoke("--python", str(python), "train.py")
    assert result.return_value == 69
    assert "! 127.0.0.1: TensorFlow is not installed for the workers' interpreter\n  pip install" in result.stdout
