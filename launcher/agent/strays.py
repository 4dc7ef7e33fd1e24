"""Descendants that outlived their parent. The agent adopts them (subreaper), finds whose they were, and ends them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from .process import MARKER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .process import Process


def children() -> set[int]:
    """Every child of this process, adopted ones included, zombies too. Empty where /proc does not tell."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return {int(word) for word in file.read().split()}
    except FileNotFoundError:
        return _children_by_parent(pid)


def _children_by_parent(pid: int) -> set[int]:
    # Kernels without CONFIG_PROC_CHILDREN; and without /proc at all there is no one to find.
    found = set()
    with suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == pid:
                    found.add(int(name))
    return found


def end_strays(processes: Sequence[Process], spared: set[int]) -> None:
    """SIGKILL the adopted descendants of workers whose main process is gone; leave live workers', and ``spared``, alone."""
    live = {process.pid for process in processes if process.ended is None}
    adopted = children() - live - spared
    if not adopted:
        return
    gone = [process for process in processes if process.ended is not None]
    nobody_left = not live
    for pid in adopted:
        if nobody_left or _owner(pid, gone) is not None:
            end(pid)


def end_all() -> bool:
    """SIGKILL every child there is; True when there was one."""
    found = children()
    for pid in found:
        end(pid)
    return bool(found)


def end(pid: int) -> None:
    """SIGKILL one child, which cannot have been reaped by anybody else."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def sweep(run: str) -> list[int]:
    """SIGKILL what workers of a run have left here whose agent is gone, guard and all; returns their process ids.

    They are known by their environment; whatever descends from one of them, or is in its session, is one of them.
    """
    seen = {pid: place for pid in _own() if (place := _place(pid))}
    lost = {pid for pid in seen if _is_lost(pid, run, seen)}
    while more := {pid for pid, (parent, session) in seen.items() if pid not in lost and {parent, session} & lost}:
        lost |= more
    for pid in lost:
        end(pid)
    return sorted(lost)


def _own() -> Iterator[int]:
    """The processes of this user."""
    mine = os.getuid()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == mine:
                yield int(name)


def _place(pid: int) -> tuple[int, int] | None:
    """Its parent and its session."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (int(fields[1]), int(fields[3])) if fields else None


def _is_lost(pid: int, run: str, seen: Mapping[int, tuple[int, int]]) -> bool:
    """Whether it is of this run, and its agent is none of its ancestors: a living one adopts whoever loses its parent."""
    environment = _read(pid, "environ").split(b"\0")
    marker = next((entry for entry in environment if entry.startswith(f"{MARKER}=".encode())), b"")
    if not marker or f"TFLAUNCH_RUN={run}".encode() not in environment:
        return False
    agent = int(marker.partition(b"=")[2].partition(b".")[0])
    while pid in seen:
        pid = seen[pid][0]
        if pid == agent:
            return False
    return True


def _owner(pid: int, processes: Iterable[Process]) -> Process | None:
    """The worker among ``processes`` that ``pid`` descends from: by its session, its environment, its output pipe."""
    with suppress(OSError):
        session = os.getsid(pid)
        environment = _read(pid, "environ").split(b"\0")
        outputs = _outputs(pid)
        for process in processes:
            marked = f"{MARKER}={process.marker}".encode() in environment
            if session == process.pid or marked or process.pipe in outputs:
                return process
    return None


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
    return b""


def _outputs(pid: int) -> set[str]:
    found = set()
    for descriptor in (1, 2):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found
