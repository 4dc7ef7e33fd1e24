from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.agent import backlog as backlog_module
from launcher.agent.backlog import Backlog

if TYPE_CHECKING:
    import pytest


def taken(backlog: Backlog) -> bytes:
    found = []
    while piece := backlog.take():
        found.append(piece)
    return b"".join(found)


def test_first_in_first_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    backlog = Backlog()
    assert not backlog
    content = os.urandom(700_000)
    backlog.put(content[:400_000])
    assert backlog
    first = backlog.take()
    backlog.put(content[400_000:])
    assert first + taken(backlog) == content
    assert not backlog
    assert not backlog.full
    assert list(tmp_path.iterdir()) == []
    backlog.close()


def test_a_full_disk_keeps_it_in_memory_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = Backlog()
    backlog.put(b"one")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "pwrite", fail)
    backlog.put(b"two")
    assert backlog.full
    monkeypatch.undo()
    backlog.put(b"three")
    assert taken(backlog) == b"onetwothree"


def test_there_is_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    backlog = Backlog()
    assert backlog.full
    backlog.put(b"one")
    assert taken(backlog) == b"one"
    backlog.close()


def test_there_is_an_end_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "_MOST", 5)
    backlog = Backlog()
    backlog.put(b"123456")
    assert backlog.full
