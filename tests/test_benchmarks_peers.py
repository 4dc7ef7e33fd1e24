"""That peers are installed into environments of their own, and found there."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from click.testing import CliRunner

from tests.benchmarks import peers
from tests.benchmarks.launchers import HONCHO
from tests.benchmarks.peers import Environment, Package

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", tmp_path / ".peers")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A distribution with a program, which pip installs without asking anybody."""
    path = tmp_path / "thing-1.5-py3-none-any.whl"
    files = {
        "thing.py": "def main():\n    print('at work')\n",
        "thing-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.5\n",
        "thing-1.5.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "thing-1.5.dist-info/entry_points.txt": "[console_scripts]\nthing = thing:main\n",
    }
    with ZipFile(path, "w") as archive:
        for name, content in {**files, "thing-1.5.dist-info/RECORD": "".join(f"{name},,\n" for name in files)}.items():
            archive.writestr(name, content)
    return path


def test_what_is_installed_is_found_in_its_own_environment_and_left_alone(
    wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thing = Environment("thing", "thing", (str(wheel),))
    launcher = replace(HONCHO, program="thing", environment=thing)
    assert launcher.path is None

    assert peers.install([thing]) == []
    assert launcher.path == str(thing.programs / "thing")
    assert launcher.version == "thing 1.5"
    assert subprocess.run([thing.programs / "thing"], capture_output=True, check=True).stdout == b"at work\n"

    assert peers.install([thing]) == []
    assert capsys.readouterr().out == "thing: installing\nthing: there\n"
    assert not replace(thing, requirements=(*thing.requirements, "more")).installed


def test_one_that_cannot_be_had_keeps_none_of_the_others(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Environment("broken", "broken", (str(tmp_path / "broken-1-py3-none-any.whl"),))
    thing = Environment("thing", "thing", (str(wheel),))
    monkeypatch.setattr(peers, "ALL", (broken, thing))

    result = CliRunner().invoke(peers.main)

    assert result.exit_code == 1
    assert "Error: not installed: broken" in result.output
    assert not broken.installed
    assert thing.installed


def test_a_list_installs_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(peers.main, ["--list", "honcho", "torchrun"])

    assert result.exit_code == 0
    assert result.output == "honcho: missing\ntorchrun: missing\n"
    assert not (tmp_path / ".peers").exists()


def test_a_peer_that_nobody_knows_is_refused() -> None:
    result = CliRunner().invoke(peers.main, ["srun"])

    assert result.exit_code == 2
    assert "'srun' is not one of 'honcho', 'torchrun'" in result.output


def test_without_root_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    package = Package("parallel", "no-such-program")
    assert not package.installed
    with pytest.raises(peers.NotInstalled, match="install parallel yourself, so that no-such-program is on PATH"):
        package.install()
    assert Package("dash", "sh").installed
