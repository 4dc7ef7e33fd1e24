"""What may happen to an allocation and to what runs in it. After each, nothing is left on any node, nor where one logs in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.slurm.testbed import SRUN_PORTS

if TYPE_CHECKING:
    import psutil

    from tests.acceptance.conftest import Started
    from tests.slurm.conftest import Site

pytestmark = pytest.mark.timeout(120)

# Numbered lines until there is a file of the name of its attempt, and a last one.
PROGRAM = """
number=0
while [ ! -e enough-$TFLAUNCH_ATTEMPT ]; do
    echo attempt $TFLAUNCH_ATTEMPT $SLURMD_NODENAME line $number
    number=$((number + 1))
    sleep 0.02
done
echo lines $number
"""
GONE = "its host answers, but the agent is gone"


def start(site: Site, *salloc: str, **settings: object) -> Started:
    return site.start("sh", "-c", PROGRAM, salloc=salloc, **settings)


def enough(site: Site, attempt: int) -> None:
    (site.folder / f"enough-{attempt}").touch()


def assert_every_line_came_once(site: Site, attempt: int, workers: int) -> None:
    for number in range(workers):
        log = site.folder / f"runs/latest/attempt-{attempt}/worker-{number}.log"
        *lines, last = log.read_text().splitlines()
        assert [line.split()[-1] for line in lines] == [str(number) for number in range(int(last.split()[-1]))]


class TestAgent:
    def test_it_is_killed_again_and_again(self, site: Site) -> None:
        """Each time its node alone gets a new one, in a step of its own."""
        run = start(site, "-N2", max_restarts=3)
        for attempt in (0, 1):
            run.until(f"attempt {attempt} n2")
            site.kill_agent(2)
        run.until("attempt 2", times=2)
        enough(site, 2)
        status, err = run.end()
        assert status == 0, err
        assert err.count(f"the agent on 10.77.0.2 was lost: {GONE}") == 2
        greeted = [line for line in events(site) if '"AgentReady"' in line]
        assert sum("10.77.0.1" in line for line in greeted) == 1
        assert_every_line_came_once(site, 2, 2)

    def test_its_loop_is_killed(self, site: Site) -> None:
        run = start(site, "-N2")
        run.until("attempt 0 n2")
        youngest = max(agent(site, 2), key=lambda process: process.create_time())
        youngest.kill()
        status, err = run.end()
        assert status == 69, err
        assert f"the agent on 10.77.0.2 was lost: {GONE}" in err
        assert "lost with its host: worker 1" in err


class TestStep:
    @pytest.mark.parametrize(
        "told", [signal.SIGKILL, signal.SIGTERM, None], ids=["srun-killed", "srun-told", "scancel"]
    )
    def test_it_ends(self, site: Site, told: signal.Signals | None) -> None:
        """All agents end with it, and new ones come in other steps."""
        run = start(site, "-N3", max_restarts=1)
        run.until("attempt 0 n[123] line 0", times=3)
        if told is None:
            site.cluster.ask("scancel", f"{site.running()}.0")
        else:
            # Its child only waits for its end, to cancel the step.
            first = min(process.pid for process in site.cluster.at_login() if process.name() == "srun")
            os.kill(first, told)
        run.until("attempt 1 n[123] line 0", times=3)
        enough(site, 1)
        status, err = run.end()
        assert status == 0, err
        # Slurm kills workers and agents in an order of its own: an agent may have told of its worker's end before its own.
        assert GONE in err or "killed by SIGKILL" in err, err
        assert "all done after 1 restart" in err
        assert_every_line_came_once(site, 1, 3)


class TestCancelled:
    """The job, in each phase of a run."""

    def test_before_the_agents_are_there(self, site: Site) -> None:
        python = site.program("python", "touch here-$SLURMD_NODENAME; exec sleep 600")
        run = site.start("true", salloc=("-N2",), python=python)
        site.cluster.until(lambda: len([*site.folder.glob("here-*")]) == 2, "no agent starts")
        site.cluster.ask("scancel", site.running())
        status, err = run.end()
        assert status == 69, err
        assert "10.77.0.2: its agent did not start: " in err
        assert any(fate in err for fate in ("CANCELLED", "Terminated"))

    def test_while_it_works(self, site: Site) -> None:
        run = site.start(
            "sh", "-c", "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done", salloc=("-N2",)
        )
        run.until("up", times=2)
        site.cluster.ask("scancel", site.running())
        status, err = run.end()
        assert status == 128 + signal.SIGTERM, err
        assert "was told to end (SIGTERM to its agent)" in err
        assert sum("saved" in line for line in run.seen) == 2

    def test_between_two_attempts(self, site: Site) -> None:
        run = site.start("sh", "-c", "exit 3", salloc=("-N2",), max_restarts=2, backoff=300)
        site.cluster.until(lambda: site.happened("TaskExited", 4), "it does not end twice")
        site.cluster.ask("scancel", site.running())
        status, err = run.end()
        assert status == 3, err
        assert "not starting again: 10.77.0." in err

    def test_when_one_is_through(self, site: Site) -> None:
        ending = "echo up; [ $SLURMD_NODENAME = n1 ] || { trap 'exit 0' TERM; while :; do sleep 0.1; done; }"
        run = site.start("sh", "-c", ending, salloc=("-N2",))
        run.until("up", times=2)
        site.cluster.until(lambda: site.happened("TaskExited"), "nobody ends")
        site.cluster.ask("scancel", site.running())
        status, err = run.end()
        assert status == 128 + signal.SIGTERM, err


class TestNode:
    def test_all_are_out_of_reach_for_a_while(self, site: Site) -> None:
        """Not even the step may end meanwhile. No line is lost, and none comes twice."""
        run = start(site, "-N2")
        run.until("line 5", times=2)
        nodes = site.cluster.hosts[:2]
        for node in nodes:
            node.unplug()
        site.cluster.until(lambda: site.happened("LinkDown", 2), "nobody has noticed")
        for node in nodes:
            node.plug()
        site.cluster.until(lambda: site.happened("LinkUp", 2), "they do not come back", within=60)
        enough(site, 0)
        status, err = run.end()
        assert status == 0, err
        assert err.count("(not heard of for 10 s); its workers go on for 60 s without it") == 2
        assert_every_line_came_once(site, 0, 2)

    def test_the_run_goes_on_without_one_and_with_it_again(self, site: Site) -> None:
        run = start(site, "-N3", "--no-kill", max_restarts=4, min_workers=1, lease=2)
        run.until("attempt 0 n[123] line 0", times=3)
        lost, back = site.cluster.hosts[1:]
        lost.crash()
        back.crash()
        back.start()
        run.until("attempt 1 n[13] line 0", times=2)
        lost.start()
        site.cluster.until(
            lambda: "down" not in site.cluster.ask("sinfo", "--Node", "--format=%T"), "it stays down", 60
        )
        site.kill_agent(1)
        run.until("attempt 2 n[123] line 0", times=3)
        enough(site, 2)
        status, err = run.end()
        assert status == 0, err
        assert "going on without 10.77.0.2: its agent did not start: Task launch for StepId=" in err
        assert "going on without 10.77.0.3" not in err
        assert "10.77.0.2 is back" in err
        site.nothing_is_left()
        site.cluster.until(site.cluster.is_up, "it does not come back", within=60)

    def test_one_is_not_there_from_the_start(self, site: Site) -> None:
        """Slurm does not know yet. Whoever suffers from it is not blamed."""
        wait = 'while [ ! -e go ]; do sleep 0.05; done; exec "$0" "$@"'
        run = site.tflaunch("salloc", "-N3", "sh", "-c", wait).start("run", site.request(), "--", "true")
        site.cluster.until(lambda: "R" in site.cluster.ask("squeue", "--noheader", "--format=%t"), "it does not run")
        lost = site.cluster.hosts[1]
        lost.crash()
        (site.folder / "go").touch()
        status, err = run.end()
        lost.start()
        assert status == 69, err
        reasons = [line for line in err.splitlines() if "its agent did not start" in line]
        assert all("failed on node n2: Communication connection failure" in line for line in reasons), err
        assert any(line.startswith("  10.77.0.2: ") for line in reasons)
        site.nothing_is_left()
        site.cluster.until(site.cluster.is_up, "it does not come back", within=60)


class TestNoAgent:
    """Why there is none is said at once, of each node; no deadline has to pass."""

    def test_no_python_anywhere(self, site: Site) -> None:
        ended = site.run("true", salloc=("-N3",), python="/nowhere/python")
        assert ended.status == 69
        assert "no word from" not in ended.err
        for number in (1, 2, 3):
            assert f"10.77.0.{number}: its agent did not start: " in ended.err
        assert (
            ended.err.count("execve(): /nowhere/python: No such file or directory (is that Python on the nodes, too?")
            == 3
        )

    def test_no_python_on_some(self, site: Site) -> None:
        python = site.program(
            "python", f'[ $SLURMD_NODENAME = n1 ] && exec {sys.executable} "$@"; exec /nowhere/python'
        )
        ended = site.run("true", salloc=("-N3",), python=python)
        assert ended.status == 69
        assert "2 of 3 hosts are not to be had" in ended.err, ended.err
        for number in (2, 3):
            said = (
                f"10.77.0.{number}: its agent did not start: {site.folder}/python: 2: exec: /nowhere/python: not found"
            )
            assert said in ended.err
        assert "no word from" not in ended.err

    def test_one_cannot_dial_back(self, site: Site) -> None:
        """Slurm itself can; the agent gives up after 20 s."""
        rule = f"ip saddr 10.77.0.2 tcp flags & (syn | ack) == syn tcp dport != {{ 6817, {SRUN_PORTS} }} drop"
        in_controller("nft", f"table inet cut {{ chain some {{ type filter hook input priority 0; {rule}; }}; }}", site)
        try:
            ended = site.run("true", salloc=("-N2",))
        finally:
            in_controller("nft", "delete table inet cut", site)
        assert ended.status == 69
        assert "10.77.0.2: its agent did not start: n2 cannot reach the launcher at 10.77.0.254:" in ended.err
        assert "nodes must reach this machine, as srun's own connections do" in ended.err
        assert "10.77.0.1" not in ended.err


class TestRequest:
    def test_there_is_no_allocation(self, site: Site) -> None:
        ended = site.tflaunch()("run", site.request(), "--", "true")
        assert ended.status == 69
        assert (
            'engine "slurm": not in an allocation\n  get one with salloc, or leave that to tflaunch submit' in ended.err
        )

    def test_how_an_earlier_job_has_ended_is_not_how_this_one_does(self, site: Site) -> None:
        """A job is queued again that was warned, and not one that cannot even begin."""
        first = site.run("true", salloc=("-N1",))
        assert first.run_dir is not None
        warned = {**first.outcome, "exit_status": 128 + signal.SIGUSR1}
        (first.run_dir / "outcome.json").write_text(json.dumps(warned))
        request = site.request(forward=["NOWHERE"], slurm={"requeue": True})
        ended = site.tflaunch("salloc", "-N1")("run", request, f"--into={first.run_dir}", "--", "true")
        assert ended.status == 2
        assert "to be forwarded, but not set here: NOWHERE" in ended.err
        assert "queue" not in ended.err

    def test_srun_is_not_there(self, site: Site) -> None:
        tools = site.folder / "tools"
        tools.mkdir()
        for name in ("scontrol", "true"):
            (tools / name).symlink_to(f"/usr/bin/{name}")
        ended = site.tflaunch("salloc", "-N2", "/usr/bin/env", f"PATH={tools}")("run", site.request(), "--", "true")
        assert ended.status == 69
        assert "cannot start srun: No such file or directory\n  is this a machine of the cluster?" in ended.err

    def test_what_the_job_asked_for_its_own_tasks_is_not_for_the_agents(self, site: Site) -> None:
        given = (
            "EXPORT_ENV=NONE CPU_BIND=verbose,map_cpu:0 CPUS_PER_GPU=1 NO_KILL=1 EXCLUSIVE=1 GRES=gpu:9 MEM_PER_CPU=10"
        )
        more = "MEM_PER_NODE=50 STDOUTMODE=none HINT=nomultithread GPUS=3 NTASKS_PER_CORE=1 GPU_BIND=single:1 DISTRIBUTION=cyclic"
        wrapper = ("salloc", "-N2", "-c2", "env", *(f"SLURM_{one}" for one in f"{given} {more}".split()), "MINE=there")
        ended = site.tflaunch(*wrapper)("run", site.request(), "--", "sh", "-c", "echo $MINE")
        assert ended.status == 0, ended.err
        assert ended.lines.count("worker 1 | there") == 1


def agent(site: Site, number: int) -> list[psutil.Process]:
    return [one for one in site.cluster.hosts[number - 1].processes() if one.name().startswith("python")]


def events(site: Site) -> list[str]:
    return (site.folder / "runs/latest/events.jsonl").read_text().splitlines()


def in_controller(tool: str, order: str, site: Site) -> None:
    subprocess.run(["ip", "netns", "exec", site.cluster.controller, tool, order], check=True)
