"""Real hosts over ssh, which have nothing but sshd, a Python and TensorFlow."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.hosts.testbed import OLD

if TYPE_CHECKING:
    from tests.acceptance.conftest import Started
    from tests.hosts.conftest import Field

pytestmark = pytest.mark.timeout(120)


class TestReach:
    def test_each_task_runs_on_its_host_in_that_hosts_environment(self, hosts: Field) -> None:
        program = 'echo "$(hostname) $PWD $HOME ${GIVEN-} ${MINE-nothing of mine} $TFLAUNCH_TASK"'
        ended = hosts.tflaunch(
            *("run", hosts.cluster(workers=3, env={"GIVEN": "given"}), "-e", "SENT", "--", "sh", "-c", program),
            env={"MINE": "mine", "SENT": "sent"},
        )
        assert ended.status == 0, ended.err
        first, second = hosts.bed.hosts
        assert sorted(line.partition(" | ")[2] for line in ended.lines) == [
            f"h1 /tmp {first.home} given nothing of mine worker:0",
            f"h1 /tmp {first.home} given nothing of mine worker:1",
            f"h2 /tmp {second.home} given nothing of mine worker:2",
        ]

    def test_arguments_and_environment_are_on_no_command_line(self, hosts: Field) -> None:
        run = hosts.start("sh", "-c", "echo up; sleep 600; echo PRIVATE", env={"KEY": "SECRET"})
        run.until("up", times=2)
        own = [process for host in hosts.bed.hosts for process in host.processes() if process.name() != "sh"]
        assert own
        assert not [process for process in own if re.search("PRIVATE|SECRET", " ".join(process.cmdline()))]
        run.send(signal.SIGINT)
        assert run.end()[0] == 130

    def test_the_agent_is_kept_for_the_next_time(self, hosts: Field) -> None:
        host = hosts.bed.hosts[0]
        assert hosts.run("true").status == 0
        (kept,) = (host.home / ".cache/tflaunch").iterdir()
        file = kept / "launcher/__init__.py"
        made = kept.stat().st_ino, file.stat().st_ino, file.stat().st_mtime_ns
        assert hosts.run("true").status == 0
        assert (kept.stat().st_ino, file.stat().st_ino, file.stat().st_mtime_ns) == made

    @pytest.mark.parametrize("shell", ["bash", "tcsh"])
    def test_what_a_login_shell_prints_is_nobodys(self, hosts: Field, shell: str) -> None:
        if not (found := shutil.which(shell)):
            pytest.skip(f"{shell} is not installed")
        first = hosts.bed.hosts[0]
        (first.home / f".{shell}rc").write_text("echo welcome; printf '\\0tfl'\n")
        first.restart(shell=found)
        ended = hosts.run("echo", "here")
        assert ended.status == 0, ended.err
        assert sorted(ended.lines) == ["worker 0 | here", "worker 1 | here"]

    def test_by_alias_user_and_port(self, hosts: Field) -> None:
        (hosts.bed.home / ".ssh/config").write_text(
            f"Host first\n  HostName h1\nHost *\n  IdentityFile {hosts.bed.folder}/user_key\n"
        )
        ways: list[dict[str, Any]] = [
            {"address": "10.77.0.1", "ssh": "first", "user": "root", "port": 22},
            {"address": "10.77.0.2", "jump": "root@first:22", "ssh_options": {"Compression": "yes"}},
        ]
        ended = hosts.run("hostname", hosts=ways)
        assert ended.status == 0, ended.err
        assert sorted(ended.lines) == ["worker 0 | h1", "worker 1 | h2"]

    def test_a_gate_that_lets_one_through_at_a_time(self, three: Field) -> None:
        gate = three.bed.hosts[0]
        gate.restart("MaxStartups 1:100:1")
        hosts = [{"address": host.address, "jump": gate.name} for host in three.bed.hosts[1:]]
        ended = three.run("hostname", hosts=[{"address": gate.address}, *hosts])
        assert ended.status == 0, ended.err
        assert sorted(ended.lines) == ["worker 0 | h1", "worker 1 | h2", "worker 2 | h3"]


class TestNoReach:
    @pytest.mark.parametrize(
        ("host", "said", "hint"),
        [
            ({"address": "10.77.0.1", "port": 23}, "Connection refused", "is sshd running"),
            ({"address": "nowhere"}, "Could not resolve hostname nowhere", "correct its name"),
            ({"address": "ctl", "ssh": "10.77.0.9"}, "No route to host", "is it up"),
            ({"address": "h1", "ssh_options": {"PubkeyAuthentication": "no"}}, "Permission denied", "ssh-copy-id h1"),
            ({"address": "h1", "python": "/opt/python9"}, "/opt/python9", "is Python 3.11 or later there?"),
            ({"address": "h1", "python": "/bin/true"}, "it ended with status 0", ""),
        ],
    )
    def test_one_line_says_why_and_what_to_do(self, hosts: Field, host: dict[str, Any], said: str, hint: str) -> None:
        ended = hosts.run("true", hosts=[host, {"address": "h2"}])
        assert ended.status == 69
        assert f"{host['address']}: its agent did not start: " in ended.err
        assert said in ended.err
        assert hint in ended.err

    def test_all_that_cannot_be_reached_are_told_at_once(self, hosts: Field) -> None:
        ended = hosts.run("true", hosts=[{"address": "nowhere"}, {"address": "h1", "port": 23}, {"address": "h2"}])
        assert ended.status == 69
        assert "2 of 3 hosts are not to be had" in ended.err
        assert "  nowhere: its agent did not start: ssh: Could not resolve hostname nowhere" in ended.err
        assert "  h1: its agent did not start: ssh: connect to host h1 port 23: Connection refused" in ended.err

    def test_a_host_key_that_is_not_known(self, hosts: Field) -> None:
        (hosts.bed.home / ".ssh/known_hosts").unlink()
        ended = hosts.run("true")
        assert ended.status == 69
        assert "Host key verification failed" in ended.err
        assert "connect once by hand" in ended.err

    def test_a_host_key_that_is_another(self, hosts: Field) -> None:
        other = (hosts.bed.folder / "user_key.pub").read_text()
        (hosts.bed.home / ".ssh/known_hosts").write_text(f"10.77.0.1,10.77.0.2 {other}")
        ended = hosts.run("true")
        assert ended.status == 69
        assert "Host key verification failed" in ended.err
        assert "its key is not the one it had" in ended.err

    def test_a_key_that_they_do_not_know(self, hosts: Field) -> None:
        (hosts.bed.home / ".ssh/config").write_text(f"IdentityFile {hosts.bed.folder}/host_key\nIdentitiesOnly yes\n")
        ended = hosts.run("true")
        assert ended.status == 69
        assert "Permission denied (publickey)" in ended.err
        assert "let yourself in without a password: ssh-copy-id" in ended.err

    def test_one_without_python(self, hosts: Field) -> None:
        hosts.bed.hosts[1].restart("SetEnv PATH=/nowhere")
        ended = hosts.run("true", python=None)
        assert ended.status == 69
        assert re.search(r"10\.77\.0\.2: its agent did not start: .*python3: not found", ended.err)
        assert "is Python 3.11 or later there? Name one with --python" in ended.err
        # By its path, as one of an environment that nobody has activated, it is found.
        assert hosts.run("/bin/true").status == 0

    @pytest.mark.skipif(not Path(OLD).exists(), reason="an old Python is not installed")
    def test_one_with_an_old_python(self, hosts: Field) -> None:
        ended = hosts.run("true", hosts=[{"address": "h1"}, {"address": "h2", "python": OLD}])
        assert ended.status == 69
        assert re.search(
            rf"h2: its agent did not start: Python 3\.11 or later is needed, not 3\.\d+\.\d+: {OLD}", ended.err
        )
        assert "name another with --python" in ended.err

    def test_one_that_has_no_room_for_logins(self, hosts: Field) -> None:
        """Somebody else holds the only place, and does not log in."""
        full = hosts.bed.hosts[1]
        full.restart("MaxStartups 1:100:1")
        holding = "exec 3<>/dev/tcp/10.77.0.2/22; read line <&3; echo $line; sleep 600"
        command = hosts.bed.on_controller(["bash", "-c", holding])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert "OpenSSH" in holder.stdout.readline()
            ended = hosts.run("true")
            holder.kill()
        assert ended.status == 69
        assert "10.77.0.2: its agent did not start: " in ended.err
        assert "See MaxStartups in its sshd_config" in ended.err

    @pytest.mark.parametrize("key", ["address", "ssh", "user", "jump"])
    @pytest.mark.parametrize("value", ["-oProxyCommand=touch x", "a b", "a;b", "$(b)", "`b`"])
    def test_what_could_be_taken_for_something_else_is_refused(self, hosts: Field, key: str, value: str) -> None:
        ended = hosts.run("true", hosts=[{"address": "h1", key: value}])
        assert ended.status == 2
        assert f"$.hosts[0].{key}: must be" in ended.err


def pid_of_ssh(run: Started, host: str) -> int:
    return next(child.pid for child in psutil.Process(run.pid).children() if host in child.cmdline())


class TestNobodySurvives:
    def up(self, hosts: Field, **settings: Any) -> Started:
        # A grandchild that makes a session of its own, and a worker that ignores SIGTERM.
        run = hosts.start("sh", "-c", "trap '' TERM; setsid sleep 600 & echo up; sleep 600", grace=1, **settings)
        run.until("up", times=2)
        assert all(host.processes() for host in hosts.bed.hosts)
        return run

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_the_launcher_ends(self, hosts: Field, number: signal.Signals) -> None:
        run = self.up(hosts)
        run.send(number)
        hosts.nothing_is_left()
        run.end()

    def test_the_launcher_is_killed_while_output_is_on_its_way(self, hosts: Field) -> None:
        """What nobody reads any more looks much like a lost connection; nobody will come back, though."""
        run = hosts.start("sh", "-c", "echo up; while :; do echo $TFLAUNCH_ATTEMPT; done")
        run.until("up", times=2)
        run.send(signal.SIGKILL)
        hosts.nothing_is_left()
        run.end()

    @pytest.mark.parametrize("parts", [(0,), (1,), (0, 1)], ids=["guard", "loop", "both"])
    def test_an_agent_is_killed(self, hosts: Field, parts: tuple[int, ...]) -> None:
        run = self.up(hosts)
        agent = [process for process in hosts.bed.hosts[1].processes() if "python" in process.name()]
        agent.sort(key=lambda process: process.create_time())
        for process in [agent[part] for part in parts]:
            process.suspend()
        for process in [agent[part] for part in parts]:
            process.kill()
        status, err = run.end()
        assert status == 69, err
        assert "the agent on 10.77.0.2 was lost: its host answers, but the agent is gone" in err
        hosts.nothing_is_left()

    def test_a_host_crashes(self, hosts: Field) -> None:
        run = self.up(hosts, lease=3)
        hosts.bed.hosts[1].crash()
        status, err = run.end()
        assert status == 69
        assert "the agent on 10.77.0.2 was lost: out of reach for 3 s: ssh: connect to host 10.77.0.2" in err
        hosts.bed.hosts[1].start()
        hosts.nothing_is_left()

    def test_a_host_crashes_and_is_started_again(self, hosts: Field) -> None:
        run = self.up(hosts)
        hosts.bed.hosts[1].crash()
        hosts.bed.hosts[1].start()
        status, err = run.end()
        assert status == 69
        assert "its host answers, but the agent is gone: it was killed, or the host was started again" in err

    @pytest.mark.parametrize("lease", [0, 5])
    def test_a_cable_is_cut_for_longer_than_the_lease(self, hosts: Field, lease: int) -> None:
        run = self.up(hosts, lease=lease)
        hosts.bed.hosts[1].unplug()
        status, err = run.end()
        assert status == 69
        assert "10.77.0.2" in err
        assert "not heard of for 10 s" in err
        # The host itself notices, too.
        hosts.nothing_is_left()


def test_a_network_of_their_own(hosts: Field) -> None:
    """Beside the one by which they are reached."""
    for host in hosts.bed.hosts:
        host.run("ip", "address", "add", f"10.78.0.{host.number}/24", "dev", "eth0")
    ended = hosts.run("sh", "-c", "echo $TF_CONFIG", subnet="10.78.0.0/16")
    assert ended.status == 0, ended.err
    assert [line.count('"10.78.0.') for line in ended.lines] == [2, 2]
    wrong = hosts.run("true", subnet="10.79.0.0/16")
    assert (wrong.status, "10.77.0.1 has no address in 10.79.0.0/16" in wrong.err) == (69, True)


def test_two_runs_at_once(hosts: Field) -> None:
    one = hosts.start("sh", "-c", "echo up; sleep 600")
    one.until("up", times=2)
    assert hosts.run("true").status == 0
    other = hosts.start("sh", "-c", "echo up; sleep 600")
    other.until("up", times=2)
    one.send(signal.SIGKILL)
    one.end()
    hosts.bed.until(
        lambda: all(host.names().count("sleep") == 1 for host in hosts.bed.hosts),
        "the other run is not alone",
    )
    other.send(signal.SIGINT)
    assert other.end()[0] == 130


def test_a_host_that_crashes_is_left_out(three: Field) -> None:
    program = 'echo "attempt $TFLAUNCH_ATTEMPT"; [ $TFLAUNCH_ATTEMPT = 1 ] || sleep 600'
    run = three.start("sh", "-c", program, max_restarts=1, min_workers=2, lease=2)
    run.until("attempt 0", times=3)
    three.bed.hosts[1].crash()
    status, err = run.end()
    assert status == 0, err
    assert sum("attempt 1" in line for line in run.seen) == 2
    assert "going on without 10.77.0.2: " in err
    three.bed.hosts[1].start()


def test_a_run_without_a_terminal(hosts: Field) -> None:
    ended = hosts.tflaunch("run", hosts.cluster(), "--detach", "--", "sh", "-c", "echo up; sleep 600")
    assert ended.status == 0, ended.err
    watching = hosts.tflaunch.start("attach")
    watching.until(r"\| up", times=2)
    (told,) = json.loads(hosts.tflaunch("ps", "--json").out)
    assert {(task["task"], task["host"], task["state"]) for task in told["tasks"]} == {
        (f"worker {number}", host.address, "running") for number, host in enumerate(hosts.bed.hosts)
    }
    assert hosts.tflaunch("stop").status == 0
    assert watching.end()[0] == 143
    hosts.nothing_is_left()
