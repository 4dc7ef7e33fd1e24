"""What the other tests rely on: hosts that are gone when the tests are, whatever ended those."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.hosts import testbed
from tests.hosts.testbed import ROOT

pytestmark = [pytest.mark.timeout(120), pytest.mark.skipif(bool(testbed.missing()), reason=testbed.missing())]

SCRIPT = """
from tests.hosts.testbed import Testbed
with Testbed(1) as bed:
    print(bed.name, bed.hosts[0]._process.pid, flush=True)
    input()
"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, None], ids=["killed", "told to end", "done"])
def test_nothing_is_left(by: signal.Signals | None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdin is not None
        assert tests.stdout is not None
        name, pid = tests.stdout.readline().split()
        host, (caretaker,) = psutil.Process(int(pid)), _caretakers(name)
        assert len(_left(name)) == 5
        if by:
            os.kill(tests.pid, by)
        else:
            tests.stdin.write("\n")
    psutil.wait_procs([caretaker], 60)
    assert not _left(name)
    assert not host.is_running() or host.status() == psutil.STATUS_ZOMBIE


def _caretakers(name: str) -> list[psutil.Process]:
    """The shell that waits for the end of the tests."""
    return [one for one in psutil.process_iter(["cmdline"]) if f"/run/tflaunch-{name}" in (one.info["cmdline"] or [])]


def _left(name: str) -> list[Path]:
    return [path for folder in ("/run/netns", "/etc/netns", "/run") for path in Path(folder).glob(f"*{name}*")]
