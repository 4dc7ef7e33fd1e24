from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from launcher.agent.leftovers import leftovers, tidy

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

MONTHS = 90 * 86_400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tflaunch"


def folder(path: Path, *, age: float = MONTHS) -> str:
    path.mkdir(parents=True)
    (path / "file").write_bytes(bytes(1000))
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def old() -> list[object]:
    found = leftovers()["folders"]
    assert isinstance(found, list)
    return [one["path"] for one in found if one["old"]]


def test_folders_with_their_size(cache: Path) -> None:
    agent, code = folder(cache / "agent-1"), folder(cache / "code/train-1", age=0)
    folder(cache / "something-else")
    assert leftovers()["folders"] == [
        {"path": agent, "size": 1000, "old": True},
        {"path": code, "size": 1000, "old": False},
    ]


def test_no_more_than_the_old_ones_are_deleted(cache: Path) -> None:
    agent, fresh, code = folder(cache / "agent-1"), folder(cache / "agent-2", age=3600), folder(cache / "code/train-1")
    assert sorted(tidy()) == [agent, code]
    assert [str(path) for path in sorted(cache.glob("*"))] == [fresh, str(cache / "code")]
    assert list((cache / "code").iterdir()) == []


def test_sockets_at_which_nobody_listens_go(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.agent.leftovers._MOORINGS", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as alive:
        dead.bind(str(tmp_path / "dead"))
        alive.bind(str(tmp_path / "alive"))
        alive.listen()
        (tmp_path / "file").touch()
        tidy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive", "file"]


def test_what_a_process_uses_stays(cache: Path) -> None:
    here, opened, named = (folder(cache / f"agent-{number}") for number in range(3))
    program = f"import os; os.open({opened!r}, os.O_RDONLY); print(flush=True); input()"
    argv = [sys.executable, "-c", program, f"{named}/worker/start.py"]
    with subprocess.Popen(argv, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert (old(), tidy()) == ([], [])
        process.communicate(b"\n")
    assert old() == [here, opened, named]


def test_nothing_is_kept_yet(cache: Path) -> None:
    assert leftovers()["folders"] == []
    assert tidy() == []
