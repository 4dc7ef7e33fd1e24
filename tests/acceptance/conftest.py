"""The real command, run as a user runs it, and a look from outside at what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

TFLAUNCH = Path(sys.executable).with_name("tflaunch")
MARK = "ACCEPTANCE_MARK"
PATIENCE = 60.0


@dataclass
class Ended:
    """A finished command."""

    status: int
    out: bytes
    err: str
    run_dir: Path | None

    @property
    def lines(self) -> list[str]:
        return self.out.decode(errors="replace").splitlines()

    @property
    def outcome(self) -> dict[str, Any]:
        assert self.run_dir is not None, self.err
        loaded: dict[str, Any] = json.loads((self.run_dir / "outcome.json").read_text())
        return loaded

    def log(self, slug: str) -> bytes:
        assert self.run_dir is not None, self.err
        return (self.run_dir / "attempt-0" / f"{slug}.log").read_bytes()


@dataclass
class Started:
    """A running command, its output read line by line."""

    process: subprocess.Popen[bytes]
    seen: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def until(self, pattern: str, times: int = 1) -> str:
        """Read standard output until ``pattern`` has come that often; returns the last such line."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline().decode(errors="replace")
            assert line, f"ended before {pattern!r} came {times} times: {self.seen}"
            self.seen.append(line.rstrip("\n"))
            times -= bool(re.search(pattern, line))
            if not times:
                return self.seen[-1]

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def agent(self) -> tuple[psutil.Process, psutil.Process]:
        """The agent's guard and its loop."""
        guard = next(child for child in psutil.Process(self.pid).children() if "launcher.agent" in str(child.cmdline()))
        loop = next(child for child in guard.children() if "launcher.agent" in str(child.cmdline()))
        return guard, loop

    def end(self, within: float = PATIENCE) -> tuple[int, str]:
        """Wait for the end; returns status and standard error."""
        out, err = self.process.communicate(timeout=within)
        self.seen += out.decode(errors="replace").splitlines()
        return self.process.returncode, err.decode()


@dataclass
class Command:
    """``tflaunch`` in a directory of its own. Everything that it starts carries a mark in its environment.

    Attributes:
        wrapper: a command that runs the one behind it.
        env: what is set for each of them.
    """

    cwd: Path
    wrapper: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def script(self, text: str, name: str = "script.py") -> str:
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    def __call__(self, *args: str, env: dict[str, str] | None = None, timeout: float = PATIENCE) -> Ended:
        """Run to the end."""
        before = self.runs()
        process = self._start(args, env)
        out, err = process.communicate(timeout=timeout)
        new = sorted(self.runs() - before)
        return Ended(process.returncode, out, err.decode(), new[-1] if new else None)

    def start(self, *args: str, env: dict[str, str] | None = None) -> Started:
        return Started(self._start(args, env))

    def runs(self) -> set[Path]:
        return {path for path in self.cwd.glob("runs/*") if path.is_dir() and not path.is_symlink()}

    def left(self) -> list[psutil.Process]:
        """Whatever it started that is still there, zombies aside."""
        return living(lambda process: process.environ().get(MARK) == self.mark)

    def end(self) -> None:
        """End what still runs of it."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def _start(self, args: tuple[str, ...], env: dict[str, str] | None) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*self.wrapper, str(TFLAUNCH), *args],
            cwd=self.cwd,
            env={**os.environ, MARK: self.mark, **self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A test runner in the background of a script has SIGINT ignored, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,  # noqa: PLW1509
        )
        self.started.append(process)
        return process


def living(wanted: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """The processes that are ``wanted``, zombies aside; one that ends meanwhile is not."""
    found = []
    for process in psutil.process_iter():
        try:
            if wanted(process) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def tflaunch(tmp_path: Path) -> Iterator[Command]:
    """The command; at the end of the test nothing of what it started may be left."""
    command = Command(tmp_path)
    yield command
    command.end()
    gone(command.left)


def gone(left: Callable[[], list[psutil.Process]], within: float = 5.0) -> None:
    """Wait until nothing is left, and fail with what is."""
    psutil.wait_procs(left(), timeout=within)
    assert left() == []
