from __future__ import annotations

import re
import select
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.host import one_at_a_time

if TYPE_CHECKING:
    from tests.worker.conftest import Processes

HOLD = """
import os, sys, tempfile
tempfile.tempdir = sys.argv[1]
from worker.host import one_at_a_time
with one_at_a_time("a/b c"):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_one_goes_in_when_the_other_comes_out_or_dies(tmp_path: Path, processes: Processes) -> None:
    def start() -> subprocess.Popen[str]:
        return processes.start("-c", HOLD, str(tmp_path))

    first = start()
    assert first.stdout
    assert first.stdout.readline() == "in\n"
    second = start()
    # The second has come as far as it can when it waits for the lock, which the kernel lists.
    while not re.search(rf"-> FLOCK +ADVISORY +WRITE {second.pid} ", Path("/proc/locks").read_text()):
        assert second.poll() is None
    assert second.stdout
    assert select.select([second.stdout], [], [], 0)[0] == []
    first.kill()
    assert second.stdout.readline() == "in\n"


def test_the_lock_is_the_users_own_and_no_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with one_at_a_time("x"):
        pass
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o077 == 0
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), one_at_a_time("x"):
        pass
    assert not (tmp_path / "elsewhere").exists()
