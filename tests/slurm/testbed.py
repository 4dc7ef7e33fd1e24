"""A real Slurm on the hosts of ``tests/hosts/testbed.py``: slurmctld on the controller, a slurmd on each host, one munged.

Nothing of it is under /etc, and it needs no systemd, no cgroup and no database. Sources: slurm.conf(5), munged(8).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hosts import testbed
from tests.hosts.testbed import Testbed

if TYPE_CHECKING:
    from collections.abc import Sequence

_DAEMONS = ("munged", "slurmctld", "slurmd")
_SBIN = "/usr/sbin"
# Not among those that the kernel gives to whoever asks for any.
SRUN_PORTS = "61001-61400"


def missing() -> str:
    """Why there can be no Slurm here; empty when there can."""
    if why := testbed.missing():
        return why
    absent = [name for name in _DAEMONS if shutil.which(name, path=_SBIN) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class Cluster(Testbed):
    """Nodes n1 .. nN, whose names resolve nowhere, on hosts h1 .. hN. As a context manager it leaves nothing behind.

    Args:
        cores: as many on each node, for Slurm.
        gpus: as many on each node, which are no GPUs but look like some to Slurm.
        settings: further lines of slurm.conf; they may say something else than ours.
    """

    def __init__(self, count: int, *, cores: int = 4, gpus: int = 0, settings: Sequence[str] = ()) -> None:
        super().__init__(count, shared=True)
        self.conf = self.folder / "slurm.conf"
        self._cores, self._gpus = cores, gpus
        self._settings = settings
        self._munge = self.folder / "munge"
        self._daemons: list[subprocess.Popen[bytes]] = []
        for host in self.hosts:
            host.services = [f"{_SBIN}/slurmd -f {self.conf} -N {self.node(host.number)}"]

    @staticmethod
    def node(number: int) -> str:
        """What Slurm calls the host of this number."""
        return f"n{number}"

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands have to be told."""
        return {"SLURM_CONF": str(self.conf)}

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands says on the controller."""
        done = subprocess.run(
            self.on_controller(command),
            env={**os.environ, **self.environment},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def _make(self) -> None:
        self._write_settings()
        super()._make()
        self._daemons.append(self._start(self.on_controller([f"{_SBIN}/slurmctld", "-D", "-f", str(self.conf)])))
        self.until(self.is_up, f"the nodes are not idle: see {self.folder}/slurmctld.log")

    def _unmake(self) -> None:
        for daemon in self._daemons:
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait()
        super()._unmake()

    def is_up(self) -> bool:
        """All nodes are there, and have nothing to do."""
        done = subprocess.run(
            self.on_controller(["sinfo", "--noheader", "--Node", "--format=%T"]),
            env={**os.environ, **self.environment},
            check=False,
            capture_output=True,
            text=True,
        )
        return done.stdout.split() == ["idle"] * len(self.hosts)

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], **self.environment},
        )

    def _serve(self) -> None:
        self._munge.mkdir(mode=0o755)
        key = self._munge / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        places = [f"--{name}-file={self._munge / name}" for name in ("key", "pid", "log", "seed")]
        argv = [f"{_SBIN}/munged", "--foreground", "--force", *places, f"--socket={self._munge / 'socket'}"]
        self._daemons.append(self._start(self.on_controller(argv)))
        self.until((self._munge / "socket").exists, f"munged does not listen: see {self._munge}/log")

    def _write_settings(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        # What Slurm takes for a GPU is any character device.
        devices = [self.folder / f"gpu{number}" for number in range(self._gpus)]
        for device in devices:
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
        gres = f" Gres=gpu:{self._gpus}" if devices else ""
        nodes = [
            f"NodeName={self.node(host.number)} NodeHostName={host.name} NodeAddr={host.address} CPUs={self._cores} RealMemory=1000{gres}"
            for host in self.hosts
        ]
        partition = f"PartitionName=main Nodes=n[1-{len(self.hosts)}] Default=YES MaxTime=INFINITE State=UP"
        lines = [*self._common(), *(["GresTypes=gpu"] if devices else []), *self._settings, *nodes, partition]
        self.conf.write_text("\n".join([*lines, ""]))
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _common(self) -> list[str]:
        folder = self.folder
        return [
            "ClusterName=testbed",
            f"SlurmctldHost={os.uname().nodename}(10.77.0.254)",
            # A job that is queued again waits until credentials of its first life have expired: 120 s unless told otherwise.
            f"AuthInfo=socket={self._munge / 'socket'},cred_expire=5",
            *("AuthType=auth/munge", "CredType=cred/munge", "SlurmUser=root", "SlurmdUser=root"),
            *("ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "SwitchType=switch/none"),
            *("MpiDefault=none", "JobAcctGatherType=jobacct_gather/none"),
            "AccountingStorageType=accounting_storage/none",
            *("SelectType=select/cons_tres", "SelectTypeParameters=CR_Core", "SlurmdParameters=config_overrides"),
            *("ReturnToService=2", "SlurmdTimeout=10", "TCPTimeout=2", "MessageTimeout=5"),
            *(f"StateSaveLocation={folder}/state", f"SlurmdSpoolDir={folder}/spool/%n"),
            *(f"SlurmctldPidFile={folder}/slurmctld.pid", f"SlurmdPidFile={folder}/slurmd-%n.pid"),
            *(f"SlurmctldLogFile={folder}/slurmctld.log", f"SlurmdLogFile={folder}/slurmd-%n.log"),
        ]


def environment_of(path: Path) -> dict[str, str]:
    """The variables that ``env -0`` has written to a file."""
    pairs = path.read_text().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)
