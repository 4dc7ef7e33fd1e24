"""``tflaunch check``, and what a run checks by itself, on real hosts with real faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.hosts.testbed import OLD

if TYPE_CHECKING:
    from tests.acceptance.conftest import Ended
    from tests.hosts.conftest import Field
    from tests.hosts.testbed import Host

# As on its hosts: looked for, and not imported, which takes seconds.
needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
pytestmark = pytest.mark.timeout(120)

PARTED = "10.77.0.1 and 10.77.0.2 cannot reach each other: silently dropped, as a firewall does"
OPEN = "let TCP through between them, on ports 20000-20100"


def check(field: Field, *flags: str, **settings: Any) -> Ended:
    return field.tflaunch("check", field.cluster(**settings), *flags)


def told(field: Field, *flags: str, **settings: Any) -> dict[str, Any]:
    """What it says to a program; its status has to agree."""
    ended = check(field, "--json", *flags, **settings)
    found: dict[str, Any] = json.loads(ended.out)
    assert ended.status == (0 if found["fine"] else 69)
    return found


def one(found: dict[str, Any], host: str, check: str) -> dict[str, Any]:
    """The only finding of this host and this check."""
    (finding,) = [each for each in found["findings"] if (each["host"], each["check"]) == (host, check)]
    return dict(finding)


def wall(host: Host, rule: str) -> None:
    """Give a host a firewall of its own; ssh passes."""
    host.run(
        "nft", f"table inet wall {{ chain door {{ type filter hook input priority 0; tcp dport != 22 {rule}; }}; }}"
    )


def given_to_the_first(hosts: Field) -> None:
    """Put a script on one host alone."""
    assert hosts.run("sh", "-c", "hostname | grep -q 1 && echo 'print(1)' >train.py; true").status == 0


def another_tensorflow(host: Host, number: str) -> str:
    """An environment on a host whose TensorFlow says that it is of this version, and is nothing else; returns its interpreter."""
    place = host.home / "another"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    for folder in ("tensorflow", f"tensorflow-{number}.dist-info"):
        (packages / folder).mkdir()
    (packages / "tensorflow/__init__.py").touch()
    return f"{place}/bin/python"


def words(ended: Ended) -> str:
    return "\n".join(ended.lines)


class TestReady:
    @needs_tensorflow
    def test_all_is_well(self, hosts: Field) -> None:
        ended = check(hosts)
        assert ended.status == 0, ended.err
        titles, first, second, *rest = [line.split() for line in ended.lines if line]
        assert titles[:4] == ["agent", "python", "TensorFlow", "Keras"]
        assert (first[0], second[0]) == ("10.77.0.1", "10.77.0.2")
        assert ("2 of 2" in " ".join(first), "1 of 1" in " ".join(second)) == (True, True)
        assert "MTU 1500" in " ".join(first)
        assert rest == [["a", "run", "can", "start"]]

    def test_for_a_program(self, hosts: Field) -> None:
        found = told(hosts, "--", "sh")
        assert found["fine"]
        assert {(each["caller"], each["callee"], each["state"]) for each in found["dialled"]} == {
            ("10.77.0.1", "10.77.0.1", "ok"),
            ("10.77.0.1", "10.77.0.2", "ok"),
            ("10.77.0.2", "10.77.0.1", "ok"),
        }
        # Nothing was run, and nothing is kept of it.
        assert hosts.tflaunch.runs() == set()

    def test_a_table_that_a_terminal_has_no_room_for_is_turned(self, hosts: Field) -> None:
        ended = hosts.tflaunch("check", hosts.cluster(), "--", "sh", env={"FORCE_COLOR": "1", "COLUMNS": "70"})
        assert ended.status == 0
        assert "10.77.0.1" in ended.lines[0]
        assert "10.77.0.2" in ended.lines[0]
        assert "agent" in ended.lines[1]


class TestNoReach:
    def test_two_hosts_that_are_parted(self, three: Field) -> None:
        three.bed.part(three.bed.hosts[0], three.bed.hosts[1])
        ended = check(three, "--", "sh", ports="20000-20100")
        assert ended.status == 69
        assert f"! {PARTED}\n  {OPEN}\n" in words(ended)
        assert ("! 2 of 3" in words(ended), "! 1 of 2" in words(ended)) == (True, True)

    @pytest.mark.parametrize(
        ("rule", "said"),
        [
            ("ct state new reject", "refused, by a firewall that rejects"),
            ("ct state new reject with icmp type admin-prohibited", "No route to host"),
            ("ct state new drop", "silently dropped, as a firewall does"),
            ("meta length > 1000 drop", "small packets arrive, large ones vanish"),
        ],
    )
    def test_a_firewall_on_a_host(self, three: Field, rule: str, said: str) -> None:
        wall(three.bed.hosts[1], rule)
        (obstacle,) = told(three, "--", "sh")["obstacles"]
        assert obstacle["reason"].startswith(f"no other host reaches 10.77.0.2: {said}")
        assert obstacle["hint"]

    @pytest.mark.parametrize(("number", "matters"), [(0, True), (1, False)])
    def test_a_host_that_does_not_reach_itself(self, hosts: Field, number: int, matters: bool) -> None:
        host = hosts.bed.hosts[number]
        wall(host, f"ip saddr {host.address} drop")
        said = [each["reason"] for each in told(hosts, "--", "sh")["obstacles"]]
        words = "10.77.0.1 does not reach itself at that address: silently dropped, as a firewall does"
        assert said == ([words] if matters else [])

    def test_ports_that_are_let_through_are_enough(self, hosts: Field) -> None:
        wall(hosts.bed.hosts[1], "tcp dport != 20000-20100 ct state new drop")
        assert told(hosts, "--", "sh", ports="20000-20100")["fine"]

    def test_a_name_that_hosts_do_not_know(self, hosts: Field) -> None:
        ended = check(hosts, "--", "sh", hosts=[{"address": "h1"}, {"address": "second", "ssh": "h2"}])
        assert ended.status == 69
        assert "! h1 does not know the name second: " in words(ended)
        assert "give addresses that every host can dial" in words(ended)

    def test_hosts_without_an_agent_keep_nobody_from_checking_the_others(self, three: Field) -> None:
        three.bed.hosts[2].crash()
        ways = [
            {"address": "h1", "ssh_options": {"PubkeyAuthentication": "no"}},
            *({"address": name} for name in ("h2", "h3", "nowhere")),
        ]
        found = told(three, "--", "sh", hosts=ways)
        three.bed.hosts[2].start()
        assert one(found, "h1", "agent")["why"].endswith("Permission denied (publickey).")
        assert one(found, "h1", "agent")["remedy"].endswith("ssh-copy-id h1")
        assert one(found, "h2", "peers")["state"] == "ok"
        assert "Connection refused" in one(found, "h3", "agent")["why"]
        assert "Could not resolve hostname" in one(found, "nowhere", "agent")["why"]

    def test_a_key_that_is_not_known(self, hosts: Field) -> None:
        (hosts.bed.home / ".ssh/known_hosts").unlink()
        ended = check(hosts, "--", "sh")
        assert ended.status == 69
        assert "Host key verification failed" in words(ended)

    def test_too_few_ports(self, hosts: Field) -> None:
        other = hosts.start("sh", "-c", "echo up; sleep 600", ports="20000-20001")
        other.until("up", times=2)
        ended = check(hosts, "--", "sh", workers=4, ports="20000-20001")
        assert ended.status == 69
        assert ": cannot lease ports: 1 of the 2 ports needed are free in 20000-20001\n" in words(ended)
        other.send(signal.SIGINT)
        assert other.end()[0] == 130


class TestLacking:
    @needs_tensorflow
    def test_a_host_without_tensorflow(self, hosts: Field) -> None:
        found = told(hosts, hosts=[{"address": "h1"}, {"address": "h2", "python": "/usr/bin/python3"}])
        assert one(found, "h1", "tensorflow")["state"] == "ok"
        assert one(found, "h2", "tensorflow")["state"] == "bad"

    @needs_tensorflow
    def test_a_host_with_another_tensorflow(self, hosts: Field) -> None:
        """It is told, and no more: whether the two agree, the workers know."""
        ways = [{"address": "h1"}, {"address": "h2", "python": another_tensorflow(hosts.bed.hosts[1], "2.16.1")}]
        found = told(hosts, hosts=ways)
        assert found["fine"]
        assert one(found, "h2", "tensorflow")["state"] == "warn"
        assert (
            one(found, "h2", "tensorflow")["why"] == f"TensorFlow 2.16.1 here, {version('tensorflow')} on other hosts"
        )
        ended = hosts.tflaunch("run", hosts.cluster(hosts=ways), "-m", "platform")
        assert ended.status == 0, ended.err
        assert f"hosts differ: TensorFlow {version('tensorflow')} on h1; 2.16.1 on h2" in ended.err

    @pytest.mark.skipif(not Path(OLD).exists(), reason="an old Python is not installed")
    def test_a_host_with_an_old_python(self, hosts: Field) -> None:
        found = told(hosts, "--", "sh", hosts=[{"address": "h1"}, {"address": "h2", "python": OLD}])
        assert one(found, "h1", "agent")["state"] == "ok"
        assert "Python 3.11 or later is needed, not 3." in one(found, "h2", "agent")["why"]

    def test_a_script_that_one_host_has(self, hosts: Field) -> None:
        given_to_the_first(hosts)
        found = told(hosts, "train.py")
        assert one(found, "10.77.0.1", "program")["state"] == "ok"
        assert one(found, "10.77.0.2", "program")["why"] == "no such script: train.py"

    @pytest.mark.parametrize(("name", "fine"), [("train.py", True), ("other.py", False)])
    def test_a_script_that_is_copied_is_looked_for_here(self, hosts: Field, name: str, fine: bool) -> None:
        hosts.tflaunch.script("", "train.py")
        found = told(hosts, name, sync=["*.py"], cwd=str(hosts.tflaunch.cwd))
        said = [each for each in found["findings"] if each["check"] == "program" and each["state"] == "bad"]
        assert (not said) == fine

    def test_a_program(self, hosts: Field) -> None:
        assert one(told(hosts, "--", "horse"), "10.77.0.1", "program")["why"] == "no such program: horse"


class TestLeft:
    def left_behind(self, hosts: Field) -> str:
        """Have a run end in the one way in which something is left on its hosts; returns its name."""
        run = hosts.start("sh", "-c", "setsid sleep 600 & echo up; sleep 600")
        run.until("up", times=2)
        agents = [each for host in hosts.bed.hosts for each in host.processes() if "python" in each.name()]
        for process in agents:
            process.suspend()
        run.send(signal.SIGKILL)
        for process in agents:
            process.kill()
        psutil.wait_procs(agents, timeout=20)
        run.end()
        hosts.bed.until(lambda: all(set(host.names()) == {"sleep"} for host in hosts.bed.hosts), "a worker is left")
        return max(hosts.tflaunch.runs(), key=lambda path: path.stat().st_mtime).name

    def test_exactly_what_is_left_is_ended(self, hosts: Field) -> None:
        name = self.left_behind(hosts)
        alive = hosts.start("sh", "-c", "setsid sleep 500 & echo up; sleep 500")
        alive.until("up", times=2)
        found = told(hosts, "--", "sh")
        assert found["fine"]
        assert one(found, "10.77.0.1", "left")["why"] == f"earlier runs have left 2 processes of {name}"
        assert all(host.names().count("sleep") == 4 for host in hosts.bed.hosts)
        cleaned = told(hosts, "--clean", "--", "sh")
        assert cleaned["cleaned"] == {"10.77.0.1": [name], "10.77.0.2": [name]}
        assert one(cleaned, "10.77.0.1", "left")["state"] == "ok"
        assert all(host.names().count("sleep") == 2 for host in hosts.bed.hosts)
        alive.send(signal.SIGINT)
        assert alive.end()[0] == 130

    def test_old_folders(self, hosts: Field) -> None:
        code = hosts.bed.hosts[0].home / ".cache/tflaunch/code"
        old, fresh = self.folder(code / "train-1", age=90), self.folder(code / "train-2", age=3)
        assert "1 old folder with 1 MB" in words(check(hosts, "--", "sh"))
        assert told(hosts, "--clean", "--", "sh")["cleaned"] == {"10.77.0.1": [str(old)]}
        assert list(code.iterdir()) == [fresh]

    def folder(self, path: Path, age: float) -> Path:
        path.mkdir(parents=True)
        (path / "data").write_bytes(bytes(1_000_000))
        os.utime(path, (time.time() - age * 86_400,) * 2)
        return path


class TestRun:
    def test_a_firewall_is_a_sentence_and_no_hang(self, hosts: Field) -> None:
        hosts.bed.part(*hosts.bed.hosts)
        ended = hosts.run("echo", "started", ports="20000-20100")
        assert ended.status == 69
        assert ended.lines == []
        assert f"{PARTED}\n  {OPEN}\n" in ended.err
        assert ended.outcome["blame"] == "host"

    def test_a_host_that_lacks_the_script(self, hosts: Field) -> None:
        given_to_the_first(hosts)
        ended = hosts.tflaunch("run", hosts.cluster(), "train.py")
        assert ended.status == 69
        assert ended.lines == []
        assert "10.77.0.2: no such script: train.py" in ended.err

    @needs_tensorflow
    def test_training_where_one_host_lacks_tensorflow(self, hosts: Field) -> None:
        ways = [{"address": "h1"}, {"address": "h2", "python": "/usr/bin/python3"}]
        ended = hosts.tflaunch("train", hosts.cluster(hosts=ways), "digits")
        assert ended.status == 69
        assert "h2: TensorFlow is not installed for the workers' interpreter" in ended.err

    def test_nobody_listens_any_more_when_the_workers_start(self, hosts: Field) -> None:
        ended = hosts.run("sh", "-c", "ss -Hltn sport != :22; echo done")
        assert ended.status == 0, ended.err
        assert sorted(ended.lines) == ["worker 0 | done", "worker 1 | done"]

    def test_a_host_that_does_not_say_what_it_has_is_not_waited_for(self, hosts: Field) -> None:
        slow = "import os, sys, time\nif os.uname().nodename == 'h2' and 'probe.py' in str(sys.orig_argv): time.sleep(600)\n"
        for host in hosts.bed.hosts:
            (host.home / "sitecustomize.py").write_text(slow)
        path = ":".join(str(host.home) for host in hosts.bed.hosts)
        ended = hosts.tflaunch("run", hosts.cluster(env={"PYTHONPATH": path}), "-m", "platform")
        assert ended.status == 0, ended.err
        assert "10.77.0.2: no word within 10 s of what is there for the workers\n" in ended.err
        assert ended.run_dir is not None
        told = [json.loads(line) for line in (ended.run_dir / "events.jsonl").read_text().splitlines()]
        assert ("10.77.0.2", "dial") in [
            (each["host"], each["about"]) for each in told if each["event"] == "HostAnswered"
        ]
        # Not even that its interpreter does not answer, which an agent says after 20 s.
        started = next(number for number, each in enumerate(told) if each["event"] == "TaskStarted")
        assert ("10.77.0.2", "premises") not in [(each.get("host"), each.get("about")) for each in told[:started]]
