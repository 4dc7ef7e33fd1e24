"""The lock of a checkpoint directory: no TensorFlow in sight."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from worker.checkpoint.lock import Held, Lock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.conftest import Processes

HOLD = """
import pathlib, sys
from worker.checkpoint.lock import Lock
lock = Lock(pathlib.Path("."))
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_run_is_told_who_is_there_until_that_one_is_killed(tmp_path: Path, processes: Processes) -> None:
    holder = processes.start("-c", HOLD, environment={"TFLAUNCH_RUN": "digits-1"})
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Held, match=rf"^run digits-1, process {holder.pid} on {socket.gethostname()}$"):
        Lock(tmp_path).take()
    holder.kill()
    holder.wait()
    lock = Lock(tmp_path)
    assert lock.take()
    lock.release()


def test_it_can_be_taken_again_once_it_is_released(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    assert first.take()
    with pytest.raises(Held, match=f"^process {os.getpid()} on "):
        second.take()
    first.release()
    assert second.take()
    second.release()


FORK = """
import os, pathlib, sys
from worker.checkpoint.lock import Lock
lock = Lock(pathlib.Path("."))
lock.take()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os.wait()
"""


def test_an_orphan_of_its_holder_does_not_have_it(tmp_path: Path, processes: Processes) -> None:
    holder = processes.start("-c", FORK)
    assert holder.stdout
    orphan = int(holder.stdout.readline())
    try:
        holder.kill()
        holder.wait()
        os.kill(orphan, 0)
        assert Lock(tmp_path).take()
    finally:
        os.kill(orphan, signal.SIGKILL)


@pytest.mark.parametrize("text", [b"", b"\xff", b"{}", b"[]", b'{"run": 1}'])
def test_a_holder_that_has_not_signed_is_somebody_all_the_same(tmp_path: Path, text: bytes) -> None:
    lock = Lock(tmp_path)
    lock.take()
    (tmp_path / "lock").write_bytes(text)
    with pytest.raises(Held, match=r"^another process$"):
        Lock(tmp_path).take()
    lock.release()
