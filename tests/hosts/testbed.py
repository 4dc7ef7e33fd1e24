"""Several hosts on one machine: network namespaces joined by a bridge, each with its own sshd, name, processes and files.

Nothing can leave: no namespace has a route to anywhere else. It takes root, iproute2, util-linux, nftables and OpenSSH.
Sources: ip-netns(8), unshare(1), sshd_config(5).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

ROOT = Path(__file__).parents[2]
_TOOLS = ("ip", "tc", "unshare", "ssh", "ssh-keygen", "nft", "mount")
_SSHD = "/usr/sbin/sshd"
_PATIENCE = 20.0
# It waits for the end of its input, which comes as well if the tests are killed, and sees to it that nothing is left.
_CARETAKER = """
read -r _
names=$1
shift
for namespace; do
    while pids=$(ip netns pids "$namespace") && [ "$pids" ]; do
        kill -9 $pids
        sleep 0.05
    done
    ip netns delete "$namespace"
done
rm -rf "$names" "$0"
"""
# Where the Python environment with TensorFlow is on each host. That of the tests is not there, nor is this checkout.
PYTHON = "/opt/tensorflow/bin/python"
# A Python that is too old, and the oldest that Debian 12 has: PyPy's, of version 3.9.
OLD = "/usr/bin/pypy3"


def missing() -> str:
    """Why there can be no testbed here; empty when there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts in network namespaces take root on Linux"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None] + [_SSHD] * (not Path(_SSHD).exists())
    return f"not installed: {', '.join(absent)}" if absent else ""


class Host:
    """One host: address 10.77.0.NUMBER, name hNUMBER."""

    def __init__(self, bed: Testbed, number: int) -> None:
        self.number = number
        self.name = f"h{number}"
        self.address = f"10.77.0.{number}"
        self.namespace = f"{bed.name}-{self.name}"
        self.folder = bed.folder / self.name
        self.home = self.folder / "home"
        self.sshd_settings = ""
        self.services: list[str] = []
        self.shell = "/bin/bash"
        self._bed = bed
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Boot it: its sshd listens when this returns."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "sshd_config").write_text(self._sshd_config())
        (self.folder / "passwd").write_text(_passwd(self.home, self.shell))
        (self.folder / "boot").write_text(self._boot())
        isolated = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *isolated, "sh", str(self.folder / "boot")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "sshd.log").open("ab"),
            start_new_session=True,
            env={"PATH": os.environ["PATH"]},
        )
        self._bed.until(self._listens, f"{self.name} does not listen: see {self.folder}/sshd.log")

    def crash(self) -> None:
        """Power off: everything on it is gone at once."""
        assert self._process is not None
        # unshare, which ip has become; its child, process 1 of the host, goes with it.
        self._process.kill()
        self._process.wait()
        self._bed.until(lambda: not self.processes(), f"{self.name} did not go down")

    def restart(self, *sshd_settings: str, shell: str = "/bin/bash") -> None:
        """Power off and on again, with other settings for its sshd, or another shell for whoever logs in."""
        self.sshd_settings, self.shell = "\n".join(sshd_settings), shell
        self.crash()
        self.start()

    def unplug(self) -> None:
        """Cut its cable: packets vanish, and nobody is told."""
        _ip("-n", self._bed.switch, "link", "set", f"v-{self.name}", "down")

    def plug(self) -> None:
        """Mend its cable."""
        _ip("-n", self._bed.switch, "link", "set", f"v-{self.name}", "up")

    def processes(self) -> list[psutil.Process]:
        """All that runs on it beside its sshd, seen from outside; zombies aside."""
        return [process for process, _ in self._named()]

    def names(self) -> list[str]:
        """What those are called."""
        return [name for _, name in self._named()]

    def commands(self) -> list[str]:
        """The first words of their command lines."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                found.append(" ".join(process.cmdline()[:1]))
        return found

    def _named(self) -> list[tuple[psutil.Process, str]]:
        return [(process, name) for process, name in _inside(self.namespace) if name not in _SYSTEM]

    def listening(self) -> list[str]:
        """The TCP ports on which something on it listens, sshd's aside."""
        said = _ip("netns", "exec", self.namespace, "ss", "-Hltn")
        ports = [line.split()[3].rpartition(":")[2] for line in said.splitlines()]
        return [port for port in ports if port != "22"]

    def files(self, folder: str) -> list[str]:
        """What lies in a folder that it alone sees."""
        assert self._process is not None
        (sshd,) = psutil.Process(self._process.pid).children()
        place = Path(f"/proc/{sshd.pid}/root{folder}")
        return [path.name for path in place.iterdir()] if place.is_dir() else []

    def run(self, *command: str) -> str:
        """What a command says that somebody runs on it."""
        return _ip("netns", "exec", self.namespace, *command)

    def _listens(self) -> bool:
        return "LISTEN" in _ip("netns", "exec", self.namespace, "ss", "-ltn", "sport = :22")

    def _boot(self) -> str:
        # The tests' own checkout, environment and scratch files are nowhere to be seen.
        hidden = [path for path in (ROOT, Path("/tmp"), Path("/root")) if path.is_dir() and not self._bed.shared]
        venv = PYTHON.removesuffix("/bin/python")
        return "\n".join(
            [
                "set -e",
                "umask 077",
                f"hostname {self.name}",
                f"mount --bind {self._bed.folder}/hosts /etc/hosts",
                f"mount --bind {self.folder}/passwd /etc/passwd",
                f"mount -t tmpfs opt /opt && mkdir -m 755 -p {venv} && chmod 755 /opt",
                f"mount --bind {sys.prefix} {venv}",
                *self._bed.base_mounts(),
                *(f"mount -t tmpfs -o mode=1777 hidden {path}" for path in hidden),
                *self._bed.base_back(),
                *self.services,
                f"exec {_SSHD} -D -e -f {self.folder}/sshd_config",
            ]
        )

    def _sshd_config(self) -> str:
        return "\n".join(
            [
                "Port 22",
                f"ListenAddress {self.address}",
                f"HostKey {self._bed.folder}/host_key",
                f"AuthorizedKeysFile {self._bed.folder}/user_key.pub",
                *("PidFile none", "StrictModes no", "UsePAM no", "UseDNS no", "PrintMotd no"),
                *("PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin yes"),
                f"{self.sshd_settings}\n",
            ]
        )


_SYSTEM = {"sshd", "unshare", "slurmd"}


class _End(NamedTuple):
    """What is at the other end of a cable of the switch."""

    name: str
    namespace: str
    address: str

    @property
    def hardware(self) -> str:
        """Of an address that nobody has bought."""
        return f"02:00:0a:4d:00:{int(self.address.rpartition('.')[2]):02x}"


class Testbed:
    """Hosts h1 .. hN and a controller, where the launcher runs. As a context manager it leaves nothing behind.

    Args:
        shared: the hosts see the same files as the controller, but for their homes.
    """

    __test__ = False

    def __init__(self, count: int, *, shared: bool = False) -> None:
        self.shared = shared
        # Neither in /tmp nor in /root, which the hosts do not see.
        self.folder = Path(tempfile.mkdtemp(prefix="tflaunch-testbed-", dir="/run"))
        self.name = self.folder.name[len("tflaunch-") :]
        self.switch, self.controller = f"{self.name}-sw", f"{self.name}-ctl"
        self.hosts = [Host(self, number) for number in range(1, count + 1)]
        self.home = self.folder / "home"
        self._caretaker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        namespaces = [self.controller, *(host.namespace for host in self.hosts), self.switch]
        self._caretaker = subprocess.Popen(
            ["sh", "-c", _CARETAKER, str(self.folder), f"/etc/netns/{self.controller}", *namespaces],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._make()
        except BaseException:
            self._unmake()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unmake()

    def on_controller(self, argv: Sequence[str]) -> list[str]:
        """What runs ``argv`` on the controller, as a user whose home is ``home``."""
        inside = 'mount --bind "$0" /etc/passwd && exec "$@"'
        passwd = str(self.folder / "passwd")
        return ["ip", "netns", "exec", self.controller, "unshare", "--mount", "sh", "-c", inside, passwd, *argv]

    def at_login(self) -> list[psutil.Process]:
        """All that runs on the controller, seen from outside; zombies aside."""
        return [process for process, _ in _inside(self.controller)]

    def part(self, one: Host, other: Host) -> None:
        """Let two hosts not reach each other, though everybody else reaches both."""
        pairs = ((one.address, other.address), (other.address, one.address))
        rules = [f"ip saddr {source} ip daddr {target} drop" for source, target in pairs]
        chain = "\n".join(["type filter hook forward priority 0", *rules])
        table = f"table bridge parted {{\nchain cut {{\n{chain}\n}}\n}}"
        _ip("netns", "exec", self.switch, "nft", table)

    def rejoin(self) -> None:
        """Mend what ``part`` has cut."""
        _ip("netns", "exec", self.switch, "nft", "delete", "table", "bridge", "parted")

    @contextmanager
    def losing(self, host: Host, percent: int) -> Iterator[None]:
        """Let so many of the packets to a host get lost; some have to be."""
        rule = f'oifname "v-{host.name}" numgen random mod 100 < {percent} counter drop'
        chain = f"type filter hook forward priority 0\n{rule}"
        _ip("netns", "exec", self.switch, "nft", f"table bridge lossy {{\nchain some {{\n{chain}\n}}\n}}")
        yield
        said = _ip("netns", "exec", self.switch, "nft", "list", "table", "bridge", "lossy")
        assert re.search(r"counter packets [1-9]", said), said
        _ip("netns", "exec", self.switch, "nft", "delete", "table", "bridge", "lossy")

    @contextmanager
    def slowed(self, host: Host, rate: str) -> Iterator[None]:
        """Let no more get to a host than this (tc-tbf(8)); more has to come."""
        line = ("dev", f"v-{host.name}")
        limit = ("tbf", "rate", rate, "burst", "16kb", "latency", "200ms")
        _ip("netns", "exec", self.switch, "tc", "qdisc", "add", *line, "root", *limit)
        yield
        said = _ip("netns", "exec", self.switch, "tc", "-s", "qdisc", "show", *line)
        assert re.search(r"overlimits [1-9]", said), said
        _ip("netns", "exec", self.switch, "tc", "qdisc", "delete", *line, "root")

    def introduce(self) -> None:
        """Tell every host where every other is, so that nobody has to ask.

        Whom a kernel knows is one table for all namespaces, and has room for 1,024 that were not told (arp(7), gc_thresh3):
        32 hosts that all dial each other are too many.
        """
        ends = self._ends()
        for end in ends:
            others = [other for other in ends if other != end]
            orders = "".join(f"neigh add {one.address} lladdr {one.hardware} dev eth0\n" for one in others)
            _run("ip", "-n", end.namespace, "-batch", "-", said=orders)

    def until(self, done: Callable[[], bool], complaint: str, within: float = _PATIENCE) -> None:
        """Wait for something of the system's, which tells nobody."""
        deadline = time.monotonic() + within
        while not done():
            assert time.monotonic() < deadline, complaint
            time.sleep(0.005)

    def base_mounts(self) -> list[str]:
        """Keep the interpreter that the environment is made of, where /root or /tmp would hide it."""
        base = Path(sys.base_prefix)
        return [f"mkdir -p /opt/base && mount --bind {base} /opt/base"] if self._hides(base) else []

    def base_back(self) -> list[str]:
        """Have it at its own place again: the environment names it."""
        base = Path(sys.base_prefix)
        return [f"mkdir -p {base} && mount --bind /opt/base {base}"] if self._hides(base) else []

    def _hides(self, path: Path) -> bool:
        return not self.shared and any(path.is_relative_to(hidden) for hidden in ("/root", "/tmp"))

    def _make(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        for name in ("host_key", "user_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name))
        self._write_names()
        self._wire()
        self._serve()
        for host in self.hosts:
            host.start()

    def _serve(self) -> None:
        """Start what the hosts rely on, on the controller."""

    def _write_names(self) -> None:
        names = [("127.0.0.1", "localhost"), ("10.77.0.254", "ctl")]
        names += [(host.address, host.name) for host in self.hosts]
        (self.folder / "hosts").write_text("".join(f"{address} {name}\n" for address, name in names))
        (self.folder / "passwd").write_text(_passwd(self.home, "/bin/bash"))
        settings = self.home / ".ssh"
        settings.mkdir(parents=True, mode=0o700)
        key = (self.folder / "host_key.pub").read_text()
        (settings / "known_hosts").write_text(
            "".join(f"{host.address},{host.name} {key}" for host in self.hosts),
        )
        (settings / "config").write_text(f"Host *\n  IdentityFile {self.folder}/user_key\n  IdentitiesOnly yes\n")
        netns = Path("/etc/netns", self.controller)
        netns.mkdir(parents=True)
        shutil.copy(self.folder / "hosts", netns / "hosts")

    def _wire(self) -> None:
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "br0", "up")
        for end in self._ends():
            _ip("netns", "add", end.namespace)
            cable = ["type", "veth", "peer", "name", "eth0", "address", end.hardware, "netns", end.namespace]
            _ip("-n", self.switch, "link", "add", f"v-{end.name}", *cable)
            _ip("-n", self.switch, "link", "set", f"v-{end.name}", "master", "br0", "up")
            _ip("-n", end.namespace, "addr", "add", f"{end.address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", end.namespace, "link", "set", device, "up")

    def _ends(self) -> list[_End]:
        hosts = [_End(host.name, host.namespace, host.address) for host in self.hosts]
        return [_End("ctl", self.controller, "10.77.0.254"), *hosts]

    def _unmake(self) -> None:
        for host in self.hosts:
            if host._process is not None:
                host.crash()
        assert self._caretaker is not None
        self._caretaker.communicate()


def _inside(namespace: str) -> list[tuple[psutil.Process, str]]:
    space = Path("/run/netns", namespace).stat().st_ino
    found = []
    for process in psutil.process_iter():
        try:
            here = Path(f"/proc/{process.pid}/ns/net").stat().st_ino == space
            name = process.name()
            if here and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process, name))
        except (psutil.Error, OSError):
            continue
    return found


def _passwd(home: Path, shell: str) -> str:
    return f"root:x:0:0:root:{home}:{shell}\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"


def _ip(*args: str) -> str:
    return _run("ip", *args)


def _run(*command: str, said: str = "") -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=said)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
