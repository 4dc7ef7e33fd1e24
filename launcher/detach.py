"""A run that goes on without its terminal: the launcher forks, and whoever typed the command waits until all has started."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import Interrupted
from launcher.run import Background, ready
from launcher.run_dir import CONSOLE, OUTCOME, RunDir, last_lines, named
from launcher.visit import introduce
from launcher.watching import watch

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from launcher.config import ClusterConfig


def leave(config: ClusterConfig, into: Path | None, conduct: Callable[[Background], int]) -> int:
    """Have a child ``conduct`` the run, in a session of its own, and in the directory ``into`` or a new one.

    Returns:
        The exit status: in the child, of the run; else 0 when all tasks have been started, or that of the run that has failed
        before.

    Raises:
        TflaunchError: it cannot be started.
    """
    ready(config)
    run_dir = RunDir(into, _warn) if into is not None else RunDir.named(Path(config.run_dir), config.name, _warn)
    run_dir.make()
    ours, theirs = introduce()
    sys.stdout.flush()
    child = os.fork()
    if child:
        theirs.close()
        return _wait(ours, child, run_dir.path)
    ours.close()
    os.setsid()
    _let_go(run_dir, theirs)
    return conduct(Background(run_dir, theirs))


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _let_go(run_dir: RunDir, guest: socket.socket) -> None:
    """Hold nothing that belongs to whoever started us: its terminal, its pipes, its locks."""
    kept = {guest.fileno(), run_dir.lock}
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208 - numbers, not paths
        if descriptor > 2 and descriptor not in kept:
            with suppress(OSError):
                os.close(descriptor)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    console = null
    with suppress(OSError):  # a full disk: the run does without
        console = os.open(run_dir.path / CONSOLE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(console, descriptor)
    for descriptor in {null, console}:
        os.close(descriptor)


def _wait(line: socket.socket, child: int, folder: Path) -> int:
    """Show what is said until all has started, and how to go on from there."""
    from launcher.console import Console

    with Console("none") as console:
        try:
            ended = watch(line, console, last="started")
        except Interrupted as error:
            if error.exit_status == 128 + signal.SIGHUP:  # the terminal was closed, which it is to outlive
                raise
            # It has a session of its own: the terminal's Ctrl-C has not reached it.
            os.kill(child, error.exit_status - 128)
            ended = {}
        if started := ended.get("do") == "started":
            console.say("\n".join(["started; it goes on in the background", *_commands(folder)]))
    if started:
        print(folder)
        return 0
    return _failed(ended, child, folder)


def _commands(folder: Path) -> list[str]:
    """How to look after it."""
    return [f"tflaunch {command} {named(folder)}" for command in ("status", "attach", "logs -f", "stop")]


def _failed(ended: Mapping[str, Any], child: int, folder: Path) -> int:
    """It ended before all had started: says why, unless it has said so, and returns its status."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not ended.get("told"):
        with suppress(OSError, ValueError):
            ended = json.loads((folder / OUTCOME).read_text())
        words = ended.get("reason") or "\n".join(last_lines(folder / CONSOLE, 3)) or "it ended without a word"
        print(f"tflaunch: {words}", *filter(None, [ended.get("hint")]), sep="\n  ", file=sys.stderr)
    return status if status >= 0 else 128 - status
