from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.agent import kernel

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not kernel.LINUX, reason="these are calls of the Linux kernel"),
]

ROOT = Path(__file__).parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: what is tried here cannot be taken back."""
    prelude = "import os, signal, socket, subprocess, sys\nfrom launcher.agent import facts, kernel\n"
    argv = [sys.executable, "-c", prelude + code]
    return subprocess.run(argv, cwd=ROOT, text=True, capture_output=True, check=False)


def test_orphans_are_adopted() -> None:
    done = python(
        "kernel.adopt_orphans()\n"
        "orphan = int(subprocess.check_output(['sh', '-c', 'sleep 60 >/dev/null & echo $!']))\n"
        "parent = open(f'/proc/{orphan}/stat').read().rpartition(')')[2].split()[1]\n"
        "os.kill(orphan, signal.SIGKILL)\n"
        "assert os.waitpid(orphan, 0)[0] == orphan\n"
        "print(int(parent) == os.getpid())"
    )
    assert done.stdout == "True\n"


def test_a_child_hears_of_its_parents_death() -> None:
    code = (
        "parent = os.getpid()\n"
        "ready, tell = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    kernel.die_with_parent(signal.SIGKILL, parent)\n"
        "    os.write(tell, b'x')\n"
        "    while True: signal.pause()\n"
        "os.read(ready, 1)\n"
        "os.kill(parent, signal.SIGKILL)"
    )
    # Returns only when nobody holds the pipe of standard output any more, the child included.
    assert python(code).returncode == -signal.SIGKILL


def test_a_child_whose_parent_died_before_it_asked_ends() -> None:
    assert python("kernel.die_with_parent(signal.SIGKILL, 1 << 22)\nprint('still here')").stdout == ""


def test_a_private_network_has_a_loopback_and_nothing_else() -> None:
    done = python(
        "ids = os.geteuid(), os.getegid()\n"
        "try:\n"
        "    kernel.enter_private_network()\n"
        "except OSError as error:\n"
        "    sys.exit(f'refused: {error}')\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname(), timeout=10)\n"
        "print('lo' in dict(socket.if_nameindex()).values(), facts.exposed())\n"
        "print(ids == (os.geteuid(), os.getegid()))\n"
        "try:\n"
        "    socket.create_connection(('192.0.2.1', 80), timeout=10)\n"
        "except OSError as error:\n"
        "    print(error.strerror)"
    )
    if done.stderr.startswith("refused"):
        pytest.skip(done.stderr.strip())
    assert done.stdout.splitlines() == ["True []", "True", "Network is unreachable"]


def test_a_pipe_can_be_widened() -> None:
    read, write = os.pipe()
    before = fcntl.fcntl(read, fcntl.F_GETPIPE_SZ)
    kernel.widen(read)
    assert fcntl.fcntl(write, fcntl.F_GETPIPE_SZ) >= before
    os.close(read)
    os.close(write)


def test_what_is_no_pipe_is_left_alone() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    kernel.widen(null)
    os.close(null)
