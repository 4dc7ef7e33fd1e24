"""One launcher at work: started, watched from outside, and ended with everything below it."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.benchmarks.launchers import Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.benchmarks.launchers import Launcher

# For a trial: who takes longer has failed.
_DEADLINE = 600.0
_FAREWELL = 10.0


class Failed(Exception):
    """A launcher did not do what it was told; the message says what happened instead."""


@dataclass(frozen=True)
class Trial:
    """A launcher, and an empty folder to run it in."""

    launcher: Launcher
    folder: Path

    def start(
        self, copies: int, script: str, *arguments: str, capture: bool = False, env: Mapping[str, str] | None = None
    ) -> Run:
        """Start copies of one of the ``programs``; ``capture`` makes ``Run.output`` a pipe that has to be read."""
        argv = self.launcher.argv(Job(copies, script, arguments, self.folder))
        return Run(argv, self.folder, capture=capture, env=env or {})

    def start_idle(self, copies: int) -> tuple[Run, list[int]]:
        """Start copies that sleep; returns once all do, with their process ids."""
        return self.start_registered(copies, "idle.py")

    def start_registered(
        self, copies: int, script: str, *arguments: str, capture: bool = False, env: Mapping[str, str] | None = None
    ) -> tuple[Run, list[int]]:
        """Start copies of a program that tells its process id to its first argument; returns once all did, with them."""
        fifo = self.folder / "register"
        os.mkfifo(fifo)
        # For writing too: so the open does not wait for a writer, and reading never finds the end.
        register = os.open(fifo, os.O_RDWR)
        run = self.start(copies, script, str(fifo), *arguments, capture=capture, env=env)
        try:
            return run, run.registered(register, copies)
        except BaseException:
            run.end()
            raise
        finally:
            os.close(register)


class Gate:
    """Where programs wait until all are there: a FIFO in ``folder`` that is at its end once it is opened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"
        os.mkfifo(self.path)
        # As long as somebody has it for writing, who reads waits.
        self._held: int | None = os.open(self.path, os.O_RDWR)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def open(self) -> float:
        """Let all of them go; returns when (monotonic)."""
        # Before it is: they may be on their way before this process has its core back.
        now = time.monotonic()
        if self._held is not None:
            os.close(self._held)
            self._held = None
        return now


class Run:
    """The launcher's process. As a context manager it leaves nothing behind of what was started."""

    def __init__(self, argv: list[str], folder: Path, *, capture: bool, env: Mapping[str, str]) -> None:
        self._complaints = folder / "stderr"
        self._strangers = _descendants()
        with self._complaints.open("wb") as stderr:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                argv,
                cwd=folder,
                env={**_environment(), **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if capture else subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def _deadline(self) -> float:
        return self.started + _DEADLINE

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def output(self) -> int:
        """The descriptor to read what the launcher prints."""
        assert self._process.stdout is not None, "start it with capture=True"
        return self._process.stdout.fileno()

    def follow(self, every: float) -> Iterator[bytes]:
        """What the launcher prints, as it comes, until it has ended; nothing at all where so many seconds bring nothing.

        Raises:
            Failed: it has not ended in all that time.
        """
        with ExitStack() as stack:
            launcher = os.pidfd_open(self.pid)
            stack.callback(os.close, launcher)
            selector = stack.enter_context(selectors.DefaultSelector())
            selector.register(launcher, selectors.EVENT_READ)
            pipe = None if self._process.stdout is None else self.output
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = [key.fd for key, _ in selector.select(every)]
                if time.monotonic() > self._deadline:
                    raise Failed(f"has not ended after {_DEADLINE:g} s")
                for descriptor in ready:
                    data = os.read(descriptor, 1 << 20) if descriptor == pipe else b""
                    if not data:
                        selector.unregister(descriptor)
                    yield data
                if not ready:
                    yield b""

    def finish(self) -> float:
        """Wait until the launcher has ended well; returns when (monotonic).

        Raises:
            Failed: it ended with another status than 0.
        """
        with Watch([self.pid]) as watch:
            at = watch.wait()[self.pid]
        if self._process.wait() != 0:
            raise Failed(f"ended with status {self._process.returncode}: {self._last_words()}")
        return at

    def registered(self, register: int, count: int) -> list[int]:
        """Read that many process ids, a line each, from what the programs write to."""
        text = b""
        while text.count(b"\n") < count:
            self.wait_for(register, f"did not get its {count} workers to run")
            text += os.read(register, 4096)
        return [int(line) for line in text.split()]

    def wait_for(self, descriptor: int, otherwise: str) -> None:
        """Wait until there is something to read.

        Raises:
            Failed: the launcher has ended, or taken too long; the message is ``otherwise`` and its last words.
        """
        with ExitStack() as stack:
            launcher = os.pidfd_open(self.pid)
            stack.callback(os.close, launcher)
            selector = stack.enter_context(selectors.DefaultSelector())
            for each in (descriptor, launcher):
                selector.register(each, selectors.EVENT_READ)
            left = max(0.0, self._deadline - time.monotonic())
            if descriptor not in {key.fd for key, _ in selector.select(left)}:
                raise Failed(f"{otherwise}: {self._last_words()}")

    def processes(self) -> set[psutil.Process]:
        """The launcher and everything below it, orphans too where this process is their subreaper."""
        return _descendants() - self._strangers

    def end(self) -> None:
        """Kill what is left, by process id, until nothing is."""
        deadline = time.monotonic() + _FAREWELL
        while left := self.processes():
            for process in left:
                _kill(process)
            psutil.wait_procs(left, timeout=0.1)
            if time.monotonic() > deadline:
                raise Failed(f"left processes behind that cannot be killed: {left}")
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _last_words(self) -> str:
        lines = self._complaints.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it does not say why")


class Watch:
    """Sees processes end from outside, and at once: a pidfd becomes readable. The processes must still be there."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._selector = selectors.DefaultSelector()
        for pid in pids:
            self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            self._forget(key.fd)
        self._selector.close()

    @property
    def all_are_there(self) -> bool:
        """None has ended, be it that nobody has asked for its status yet."""
        return not self._selector.select(0)

    def wait(self) -> dict[int, float]:
        """Wait until all have ended. Returns process id -> when (monotonic)."""
        return dict(self._endings())

    def _endings(self) -> Iterator[tuple[int, float]]:
        while self._selector.get_map():
            ready = self._selector.select(_DEADLINE)
            now = time.monotonic()
            if not ready:
                raise Failed(f"still there after {_DEADLINE:g} s")
            for key, _ in ready:
                self._forget(key.fd)
                yield key.data, now

    def _forget(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)


def _environment() -> dict[str, str]:
    # Installed programs run from compiled code. With this set, one that was edited since would be compiled every time.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
