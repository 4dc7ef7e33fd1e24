"""Runs the tests of Keras in a cluster with the oldest and the newest TensorFlow and Keras that are supported.

    python -m tests.versions [PYTEST ARGUMENTS...]

Each pair gets an environment of its own, made anew with pip and gone afterwards: a few minutes, and some 2 GB of disk.
Whatever passes here, and nothing else, may stand in pyproject.toml and in worker/keras3/repair.py.
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
TESTS = [f"tests/worker/test_worker_{name}.py" for name in ("keras3", "callbacks", "preempted_fit", "repair")]
INSTALLED = f"from importlib.metadata import version; print(*(n + ' ' + version(n) for n in {Pair._fields}), sep=', ')"


def main(arguments: list[str]) -> int:
    results = [_test(pair, arguments or TESTS) for pair in (OLDEST, NEWEST)]
    for installed, status in results:
        print(f"{installed}: passed" if status == 0 else f"{installed}: failed with status {status}")
    return max(status for _, status in results)


def _test(pair: Pair, arguments: list[str]) -> tuple[str, int]:
    """The versions that were installed, and the status of pytest with them."""
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder, "bin", "python"))
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[tensorflow,test]"]
        subprocess.run([*install, *pair.requirements], check=True)
        installed = subprocess.run([python, "-c", INSTALLED], check=True, capture_output=True, text=True).stdout.strip()
        return installed, subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
