"""Real worker processes for the tests: alone, or several as one cluster on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(worker.__file__).parents[1]
NOT_INHERITED = ("TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL", "TFLAUNCH_CHECKPOINT_DIR")


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    out: str
    err: str


class Processes:
    """Starts Python in a folder, and leaves none of what it started behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self._folder,
            env={**kept, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(self._end, process)
        return process

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
        return self.wait(self.start(*arguments, environment=environment))

    def cluster(self, commands: Sequence[Sequence[str]], environment: Mapping[str, str] | None = None) -> list[Ended]:
        """Run one worker for each command line, as one cluster."""
        holders = [self._stack.enter_context(_held_port()) for _ in commands]
        addresses = [f"127.0.0.1:{holder.getsockname()[1]}" for holder in holders]
        processes = []
        for index, command in enumerate(commands):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            own = {"TF_CONFIG": json.dumps(config), "TF_GRPC_REUSE_PORT": "1"}
            processes.append(self.start(*command, environment={**own, **(environment or {})}))
        return [self.wait(process) for process in processes]

    @staticmethod
    def wait(process: subprocess.Popen[str]) -> Ended:
        out, err = process.communicate(timeout=120)
        return Ended(process.returncode, out, err)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()


def _held_port() -> socket.socket:
    """A free port, held so that nobody else gets it; TF_GRPC_REUSE_PORT lets TensorFlow listen on it all the same."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """Writes a script and gives its path."""

    def write(text: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(text)
        return str(script)

    return write
