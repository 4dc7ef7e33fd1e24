"""Launchers that reach other hosts, all of them by the same ssh, and the hosts: those of the tests (``tests/hosts``)."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.benchmarks.launchers import PROGRAMS, Job, Launcher
from tests.benchmarks.trial import Failed, Run
from tests.hosts import testbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.trial import Trial

# As many connections at a time as pdsh makes of itself, and tflaunch.
_AT_ONCE = 32
_FIRST_PORT = 2222
# As ssh_config(5) has it for who wants each further ssh to a host to take the connection of the first.
_KEPT = "  ControlMaster auto\n  ControlPath ~/.ssh/%C\n  ControlPersist 600\n"


class Hosts:
    """Hosts that have what the programs need, and the controller that everybody starts from."""

    def __init__(self, bed: testbed.Testbed) -> None:
        self.bed = bed
        # The one folder that all of them see.
        self.shared = bed.folder

    def keep_connections(self) -> None:
        """Have one open to each host from now on, which every ssh takes."""
        with (self.bed.home / ".ssh/config").open("a") as file:
            file.write(_KEPT)
        for host in self.bed.hosts:
            # What is kept must not keep our pipes.
            _quietly(self.bed.on_controller(["ssh", host.address, "true"]))

    def start(self, trial: Trial, copies: int, script: str, *arguments: str) -> Run:
        """Start copies of one of the ``programs`` on the hosts, as many on each."""
        hosts = tuple(host.address for host in self.bed.hosts)
        job = Job(copies, script, arguments, trial.folder, hosts, testbed.PYTHON, self.shared)
        return Run(self.bed.on_controller(trial.launcher.argv(job)), trial.folder, capture=False, env={})


@contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """So many hosts that nobody has been to.

    Raises:
        Failed: there can be none.
    """
    if why := testbed.missing():
        raise Failed(f"has no hosts to reach: {why}")
    with testbed.Testbed(count) as bed:
        bed.introduce()
        for program in PROGRAMS.glob("*.py"):
            shutil.copy(program, bed.folder)
        yield Hosts(bed)


def _quietly(argv: list[str]) -> None:
    null = subprocess.DEVNULL
    subprocess.run(argv, check=True, stdin=null, stdout=null, stderr=null)


def _loop(job: Job) -> list[str]:
    script = job.folder / "loop.sh"
    script.write_text(loop_script(job))
    return [str(script)]


def loop_script(job: Job) -> str:
    """What somebody writes by hand: each worker by an ssh of its own, all at once, its place before its command."""
    each = [host for host in job.hosts for _ in range(job.copies // len(job.hosts))]
    addresses = [f"{host}:{_FIRST_PORT + number}" for number, host in enumerate(each)]
    return "\n".join(
        [
            f"cluster='{json.dumps({'worker': addresses})}'",
            f"command={shlex.quote(shlex.join(job.command))}",
            "start() {",
            r"""    ssh -n $1 "TF_CONFIG='{\"cluster\": $cluster, \"task\": {\"type\": \"worker\", \"index\": $2}}' $command" &""",
            "}",
            *(f"start {host} {number}" for number, host in enumerate(each)),
            "wait\n",
        ]
    )


def _tflaunch(job: Job) -> list[str]:
    cluster = {
        "hosts": [{"address": host} for host in job.hosts],
        "python": job.python,
        "cwd": str(job.programs),
        "workers": job.copies,
    }
    (job.folder / "cluster.json").write_text(json.dumps(cluster))
    return ["run", "cluster.json", *job.script_line]


def _listed(job: Job) -> str:
    (job.folder / "hosts").write_text("".join(f"{host}\n" for host in job.hosts))
    return "hosts"


def _pdsh(job: Job) -> list[str]:
    return ["-S", "-R", "ssh", "-f", str(_AT_ONCE), "-w", f"^{_listed(job)}", shlex.join(job.command)]


def _parallel(job: Job) -> list[str]:
    options = ["--will-cite", "--tag", "--line-buffer", "--halt", "now,fail=1", "--jobs", str(_AT_ONCE)]
    return [*options, "ssh", "-n", "{}", shlex.quote(shlex.join(job.command)), "::::", _listed(job)]


def _xargs(job: Job) -> list[str]:
    return ["-a", _listed(job), "-P", str(_AT_ONCE), "-I", "{}", "ssh", "-n", "{}", shlex.join(job.command)]


SSH_LOOP = Launcher("ssh loop", "sh", _loop, role="floor")
TFLAUNCH_SSH = Launcher("tflaunch over ssh", "tflaunch", _tflaunch, role="ours")
PDSH = Launcher("pdsh", "pdsh", _pdsh)
PARALLEL_SSH = Launcher("GNU parallel, ssh", "parallel", _parallel)
XARGS_SSH = Launcher("xargs, ssh", "xargs", _xargs)
