"""Installs the launchers that tflaunch is compared with: ``python -m tests.benchmarks.peers``, in the repository's root.

What comes from a Python index gets an environment of its own, a folder in ``.peers``, so that nobody's dependencies stand
in another's way; programs of the system come by apt-get. What is there already is left alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

PEERS = Path(__file__).parents[2] / ".peers"

# PyPI's torch brings CUDA, some GB of it. A version with a local label comes from where the builds for CPUs are, or not at all.
_TORCH = "torch==2.13.0+cpu"
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class NotInstalled(Exception):
    """The message says why, or what to do."""


@dataclass(frozen=True)
class Environment:
    """A peer that comes from a Python index.

    Attributes:
        package: the one that it is all about.
        requirements: what pip is asked for.
        index: where else it looks.
    """

    name: str
    package: str
    requirements: tuple[str, ...]
    index: str | None = None

    @property
    def programs(self) -> Path:
        """The folder of its programs, the interpreter among them."""
        return PEERS / self.name / "bin"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.programs / "python"

    @property
    def version(self) -> str:
        """What is installed of it."""
        ask = f"from importlib.metadata import version; print({self.package!r}, version({self.package!r}))"
        return subprocess.run([self.python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()

    @property
    def installed(self) -> bool:
        """Whether it has all that is asked for."""
        return self._noted.is_file() and self._noted.read_text() == self._note

    def install(self) -> None:
        """From nothing, whatever an earlier attempt has left."""
        self._noted.unlink(missing_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(PEERS / self.name)])
        elsewhere = ["--extra-index-url", self.index] if self.index else []
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(self.python)]
        _run([*pip, "install", "--retries", "1", *elsewhere, *self.requirements])
        self._noted.write_text(self._note)

    @property
    def _noted(self) -> Path:
        # Written last: an environment without it is half of one.
        return PEERS / self.name / "installed"

    @property
    def _note(self) -> str:
        return "".join(f"{requirement}\n" for requirement in self.requirements)


@dataclass(frozen=True)
class Package:
    """A peer that comes from the system: Debian's name for it, and the program that it brings."""

    name: str
    program: str

    @property
    def installed(self) -> bool:
        """Whether the program is on PATH."""
        return shutil.which(self.program) is not None

    def install(self) -> None:
        """By apt-get, as root."""
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise NotInstalled(
                f"this takes apt-get, and root: install {self.name} yourself, so that {self.program} is on PATH"
            )
        # A package list that cannot be had anew may do as it is.
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdin=subprocess.DEVNULL)
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", self.name])


TORCHRUN = Environment("torchrun", "torch", (_TORCH,), _TORCH_INDEX)
ACCELERATE = Environment("accelerate", "accelerate", (_TORCH, "accelerate >=1"), _TORCH_INDEX)
HONCHO = Environment("honcho", "honcho", ("honcho >=2",))
RAY = Environment("ray", "ray", ("ray[train] >=2", "tensorflow >=2.21"))
ALL = (
    HONCHO,
    TORCHRUN,
    ACCELERATE,
    RAY,
    Package("parallel", "parallel"),
    Package("openmpi-bin", "mpirun"),
    Package("pdsh", "pdsh"),
)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([peer.name for peer in ALL]), metavar="[PEER]...")
@click.option("--list", "only_list", is_flag=True, help="Say what is there, and install nothing.")
def main(names: tuple[str, ...], *, only_list: bool) -> None:
    """Install the launchers that tflaunch is compared with; all of them, unless some are named."""
    chosen = [peer for peer in ALL if not names or peer.name in names]
    if only_list:
        for peer in chosen:
            click.echo(f"{peer.name}: {'there' if peer.installed else 'missing'}")
    elif missing := install(chosen):
        raise click.ClickException(f"not installed: {', '.join(missing)}")


def install(peers: Sequence[Environment | Package]) -> list[str]:
    """Install each that is missing. Returns the names of those that are missing still."""
    return [peer.name for peer in peers if not _install(peer)]


def _install(peer: Environment | Package) -> bool:
    if peer.installed:
        click.echo(f"{peer.name}: there")
        return True
    click.echo(f"{peer.name}: installing")
    try:
        peer.install()
    except NotInstalled as error:
        click.echo(f"{peer.name}: {error}", err=True)
        return False
    return True


def _run(command: list[str]) -> None:
    """Run what says itself what is wrong."""
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"{command[0]} ended with status {error.returncode}") from None


if __name__ == "__main__":
    main()
