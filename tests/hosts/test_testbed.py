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
    bed.hosts[0].run("sh", "-c", "sleep 600 >&- 2>&- &")
    print(bed.name, bed.hosts[0].processes()[0].pid, flush=True)
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
        inside, (caretaker,) = psutil.Process(int(pid)), _caretakers(name)
        assert len(_left(name)) == 4
        if by:
            os.kill(tests.pid, by)
        else:
            tests.stdin.write("\n")
    caretaker.wait(60)
    assert not _left(name)
    assert not inside.is_running()


def _caretakers(name: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter() if one.name() == "sh" and f"/run/tflaunch-{name}" in one.cmdline()]


def _left(name: str) -> list[Path]:
    return [path for folder in ("/run/netns", "/run") for path in Path(folder).glob(f"*{name}*")]
