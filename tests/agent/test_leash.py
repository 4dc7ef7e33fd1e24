"""That a process on a leash ends with whoever holds it, whatever ends that one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.agent import kernel
from launcher.agent.leash import Leash

pytestmark = pytest.mark.skipif(not kernel.LINUX, reason="leashes are a Linux feature")

# Holds a process that does not catch anything, tells its id, and goes on in a way of its own.
_HOLDER = """
import os, subprocess, sys
from launcher.agent.leash import Leash
others = [os.open(os.devnull, os.O_RDONLY) for _ in range(int(sys.argv[1]))]
child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
leash = Leash(child.pid)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("others", [0, 100])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_who_holds_it(signum: signal.Signals, others: int) -> None:
    argv = [sys.executable, "-c", _HOLDER, str(others)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        held = os.pidfd_open(int(holder.stdout.readline()))
        holder.send_signal(signum)
    try:
        assert select.select([held], [], [], 30.0)[0] == [held]
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(held, signal.SIGKILL)
        os.close(held)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_one_that_is_loosened_closes_what_it_had() -> None:
    before = _descriptors()
    with subprocess.Popen(["true"]) as ended:
        leash = Leash(ended.pid)
        ended.wait()
    leash.loosen()
    leash.loosen()
    assert _descriptors() == before


def test_without_descriptors_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError

    with subprocess.Popen(["sleep", "600"]) as running:
        monkeypatch.setattr(os, "pipe", refuse)
        Leash(running.pid).loosen()
        assert running.poll() is None
        running.kill()
