"""Runs the tests of the workers with the oldest and the newest TensorFlow and Keras that are supported.

    python -m tests.versions [PYTEST ARGUMENTS...]

Each pair gets an environment of its own, made anew with pip and gone afterwards: a few minutes, and some 2 GB of disk.
Whatever passes here, and nothing else, may stand in pyproject.toml and in worker/repair.py.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Pair(NamedTuple):
    """What pip is to install; an empty version is whatever it takes itself, the newest."""

    tensorflow: str
    keras: str
    tf_keras: str

    @property
    def requirements(self) -> list[str]:
        names = {name.replace("_", "-"): version for name, version in self._asdict().items()}
        return [f"{name}=={version}" if version else name for name, version in names.items()]


OLDEST = Pair("2.21.0", "3.12.0", "2.21.0")
NEWEST = Pair("", "", "")


def main(arguments: list[str]) -> int:
    statuses = {pair: _test(pair, arguments or ["tests/worker"]) for pair in (OLDEST, NEWEST)}
    for pair, status in statuses.items():
        print("passed" if status == 0 else f"failed ({status})", *pair.requirements)
    return max(statuses.values())


def _test(pair: Pair, arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder, "bin", "python"))
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "--editable", f"{ROOT}[tensorflow,test]", *pair.requirements], check=True)
        subprocess.run([python, "-m", "pip", "list"], check=True)
        return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
