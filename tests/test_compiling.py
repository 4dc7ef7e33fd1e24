"""That a script is compiled once for many workers, and that no worker runs other code than its own Python would make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher import compiling
from launcher.config import ClusterConfig, Command, HostSpec, Module, Script

if TYPE_CHECKING:
    from collections.abc import Callable

START = Path(__file__).parents[1] / "worker" / "start.py"
MANY = (os.cpu_count() or 1) + 1
PROGRAM = "import sys\ndef where(): return where.__code__.co_filename\nprint(where(), __file__, 'TFLAUNCH_COMPILED' in __import__('os').environ)\n"


def config(folder: Path, command: Command | None = None, engine: str = "local") -> ClusterConfig:
    command = command or Script("program.py")
    here = (HostSpec("127.0.0.1"),)
    return ClusterConfig(command=command, name="t", engine=engine, hosts=here, workers=MANY, cwd=str(folder))


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    def kept(source: str) -> dict[str, str]:
        (tmp_path / "program.py").write_text(source)
        return compiling.keep(config(tmp_path), MANY, tmp_path)

    return kept


def run(folder: Path, told: dict[str, str], *options: str) -> str:
    argv = [sys.executable, *options, str(START), "program.py"]
    done = subprocess.run(argv, cwd=folder, env={**os.environ, **told}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_worker_runs_what_was_compiled_as_if_it_had_done_so_itself(
    keep: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    told = keep(PROGRAM)
    assert run(tmp_path, told) == run(tmp_path, {}) == f"{tmp_path}/program.py {tmp_path}/program.py False\n"


def test_what_was_compiled_is_what_runs(keep: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    told = keep("print('one')\n")
    code = (tmp_path / "program.pyc").read_bytes()
    (tmp_path / "program.pyc").write_bytes(code.replace(b"one", b"two"))
    assert run(tmp_path, told) == "two\n"


def test_a_script_that_has_changed_since_is_compiled_anew(
    keep: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    told = keep("print('one')\n")
    (tmp_path / "program.py").write_text("print('two')\n")
    assert run(tmp_path, told) == "two\n"


@pytest.mark.parametrize("cut", [0, 10, 20])
def test_of_a_file_that_is_not_whole_nothing_is_taken(
    keep: Callable[[str], dict[str, str]], tmp_path: Path, cut: int
) -> None:
    told = keep("print('one')\n")
    compiled = tmp_path / "program.pyc"
    compiled.write_bytes(compiled.read_bytes()[:cut])
    assert run(tmp_path, told) == "one\n"
    compiled.unlink()
    assert run(tmp_path, told) == "one\n"


def test_without_assertions_it_is_other_code(keep: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    assert run(tmp_path, keep("assert False\n"), "-O") == ""


@pytest.mark.parametrize("source", ["print(\n", "if 1 is 1: pass\n", "print('\\d')\n"])
def test_what_python_would_say_of_it_is_left_to_the_workers(
    keep: Callable[[str], dict[str, str]], tmp_path: Path, source: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert keep(source) == {}
    assert not (tmp_path / "program.pyc").exists()
    assert capfd.readouterr() == ("", "")


def test_it_is_done_where_it_pays(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("")
    assert compiling.keep(config(tmp_path), MANY, tmp_path)
    assert not compiling.keep(config(tmp_path), MANY - 1, tmp_path)
    assert not compiling.keep(config(tmp_path, engine="ssh"), MANY, tmp_path)
    assert not compiling.keep(config(tmp_path, Module("program")), MANY, tmp_path)
    assert not compiling.keep(config(tmp_path, Script("absent.py")), MANY, tmp_path)
