"""A connection that is lost for a while: the workers go on, and not a line is lost or comes twice."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Started
    from tests.hosts.conftest import Field

pytestmark = pytest.mark.timeout(180)

# Numbered lines until a file says that it is enough; then all is said.
PROGRAM = """
import os, sys, time
task = os.environ["TFLAUNCH_TASK"]
number = 0
while not os.path.exists(os.environ["HOME"] + "/enough"):
    print("%s line %d" % (task, number), flush=True)
    number += 1
    time.sleep(PAUSE)
sys.stdout.write("".join("%s line %d\\n" % (task, number + i) for i in range(MORE)))
print(task, "lines", number + MORE, flush=True)
"""


def start(hosts: Field, *, pause: float = 0.01, more: int = 1000, **settings: object) -> Started:
    program = PROGRAM.replace("PAUSE", str(pause)).replace("MORE", str(more))
    return hosts.start("python3", "-c", program, **settings)


def pid_of_ssh(run: Started, host: str) -> int:
    return next(child.pid for child in psutil.Process(run.pid).children() if host in child.cmdline())


def enough(hosts: Field) -> None:
    for host in hosts.bed.hosts:
        (host.home / "enough").touch()


def assert_every_line_came_once(hosts: Field) -> None:
    for number in range(len(hosts.bed.hosts)):
        log = (hosts.tflaunch.cwd / f"runs/latest/attempt-0/worker-{number}.log").read_text().splitlines()
        *lines, last = log
        count = int(last.split()[-1])
        assert lines == [f"worker:{number} line {i}" for i in range(count)]


def test_ssh_is_killed_again_and_again(hosts: Field) -> None:
    run = start(hosts, pause=0.0001)
    run.until("worker:1 line 100$")
    seen = 0
    while seen < 3:
        os.kill(pid_of_ssh(run, "10.77.0.2"), signal.SIGKILL)
        seen += 1
        back = partial(came_back, hosts, seen)
        hosts.bed.until(back, "it does not come back")
    enough(hosts)
    status, err = run.end()
    assert status == 0, err
    assert err.count("no connection to 10.77.0.2") == err.count("10.77.0.2 is back after") == 3
    assert_every_line_came_once(hosts)


class TestWrapper:
    """What stays between sshd and the agent, as a key with a command of its own makes it."""

    @pytest.fixture
    def wrapped(self, hosts: Field) -> Field:
        for host in hosts.bed.hosts:
            # The shell of the login stays as well: what it waits for is not the last that it does.
            host.restart("""ForceCommand sh -c "$SSH_ORIGINAL_COMMAND"; exit $?""")
        return hosts

    def test_its_connection_is_lost_for_a_while(self, wrapped: Field) -> None:
        """Longer than an agent takes to see whether its launcher has lost the connection, or is gone."""
        run = start(wrapped, pause=0.0001)
        run.until("worker:1 line 100$")
        second = wrapped.bed.hosts[1]
        assert "bash" in second.names()
        shut = "chain door { type filter hook input priority 0; tcp dport 22 ct state new reject with tcp reset; }"
        second.run("nft", f"table inet shut {{ {shut}; }}")
        os.kill(pid_of_ssh(run, "10.77.0.2"), signal.SIGKILL)
        log = wrapped.tflaunch.cwd / "runs/latest/agents/10.77.0.2.log"
        wrapped.bed.until(lambda: log.read_text().count("Connection refused") >= 3, "nobody looks for it")
        second.run("nft", "delete", "table", "inet", "shut")
        wrapped.bed.until(partial(came_back, wrapped, 1), "it does not come back")
        enough(wrapped)
        status, err = run.end()
        assert status == 0, err
        assert_every_line_came_once(wrapped)

    def test_its_launcher_is_killed(self, wrapped: Field) -> None:
        """One host has the connection that it began with, the other a new one."""
        run = start(wrapped, lease=600)
        run.until("worker:1 line 100$")
        os.kill(pid_of_ssh(run, "10.77.0.2"), signal.SIGKILL)
        wrapped.bed.until(partial(came_back, wrapped, 1), "it does not come back")
        run.send(signal.SIGKILL)
        wrapped.nothing_is_left()
        run.end()


def test_a_cable_is_cut_and_mended(hosts: Field) -> None:
    """Meanwhile a worker ends, and says more than an agent holds in memory."""
    run = start(hosts, more=1_000_000)
    run.until("worker:1 line 10$")
    hosts.bed.hosts[1].unplug()
    hosts.bed.until(lambda: bool(events(hosts, "LinkDown")), "nobody has noticed")
    enough(hosts)
    hosts.bed.until(lambda: "python3" not in hosts.bed.hosts[1].commands(), "the worker goes on")
    hosts.bed.hosts[1].plug()
    status, err = run.end()
    assert status == 0, err
    assert "no connection to 10.77.0.2 (not heard of for 10 s)" in err
    assert_every_line_came_once(hosts)


def test_orders_reach_a_host_that_was_away(hosts: Field) -> None:
    run = start(hosts)
    run.until("worker:1 line 10$")
    hosts.bed.hosts[1].unplug()
    hosts.bed.until(lambda: bool(events(hosts, "LinkDown")), "nobody has noticed")
    run.send(signal.SIGINT)
    hosts.bed.hosts[1].plug()
    status, err = run.end()
    assert status == 130, err
    assert "10.77.0.2 is back" in err


def test_who_does_not_want_to_wait_need_not(hosts: Field) -> None:
    run = start(hosts, lease=5)
    run.until("worker:1 line 10$")
    hosts.bed.hosts[1].unplug()
    hosts.bed.until(lambda: bool(events(hosts, "LinkDown")), "nobody has noticed")
    run.send(signal.SIGINT)
    hosts.bed.until(lambda: "Signalled" in text(hosts), "nobody has heard")
    run.send(signal.SIGINT)
    status, _ = run.end()
    assert status == 130
    hosts.nothing_is_left()


def test_a_restart_does_not_wait_for_the_lease_of_an_agent_that_was_given_up(hosts: Field) -> None:
    """Worker 0 fails while the other host is away; when that is back, its old agent makes room for a new one."""
    program = """
import os, sys, time
print("attempt", os.environ["TFLAUNCH_ATTEMPT"], flush=True)
while os.environ["TFLAUNCH_ATTEMPT"] == "0" and not os.path.exists(os.environ["HOME"] + "/enough"):
    time.sleep(0.01)
sys.exit(os.environ["TFLAUNCH_ATTEMPT"] == "0")
"""
    run = hosts.start("python3", "-c", program, lease=600, max_restarts=20)
    run.until("attempt 0", times=2)
    second = hosts.bed.hosts[1]
    first_agent = {process.pid for process in second.processes()}
    second.unplug()
    hosts.bed.until(lambda: bool(events(hosts, "LinkDown")), "nobody has noticed")
    (hosts.bed.hosts[0].home / "enough").touch()
    hosts.bed.until(lambda: bool(events(hosts, "AgentLost")), "it was not given up")
    second.plug()
    status, err = run.end()
    assert status == 0, err
    assert not first_agent & {process.pid for process in second.processes()}


def came_back(hosts: Field, times: int) -> bool:
    return len(events(hosts, "LinkUp")) == times


def text(hosts: Field) -> str:
    return (hosts.tflaunch.cwd / "runs/latest/events.jsonl").read_text()


def events(hosts: Field, name: str) -> list[str]:
    return [line for line in text(hosts).splitlines() if f'"event": "{name}"' in line]
