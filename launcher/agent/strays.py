"""Descendants that outlived their parent. The agent adopts them (subreaper), finds whose they were, and ends them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from .process import MARKER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

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


def end_strays(living: AbstractSet[int], gone: Iterable[Process], spared: set[int]) -> None:
    """SIGKILL the adopted descendants of workers whose main process is ``gone``; leave ``living`` ones', and ``spared``, alone."""
    adopted = children() - living - spared
    if not adopted:
        return
    gone = list(gone)
    for pid in adopted:
        if not living or _owner(pid, gone) is not None:
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
    """SIGKILL what workers of a run have left here whose agent is gone, guard and all; returns their process ids."""
    lost = runs()[0].get(run, set())
    for pid in lost:
        end(pid)
    return sorted(lost)


def runs() -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """By run, the processes of this user's workers whose agent is gone; and of those whose agent is there.

    They are known by their environment. Whatever descends from one that is lost, or is in its session, is lost too.
    """
    seen = {pid: place for pid in own() if (place := _place(pid))}
    lost: dict[str, set[int]] = {}
    alive: dict[str, set[int]] = {}
    # Somebody may have started us from within one of them.
    ours = {os.getpid(), *_ancestors(os.getpid(), seen)}
    for pid in seen.keys() - ours:
        if (mark := _mark(pid)) is not None:
            run, agent = mark
            (alive if agent in _ancestors(pid, seen) else lost).setdefault(run, set()).add(pid)
    taken = ours.union(*alive.values())
    for pids in lost.values():
        while more := {pid for pid, place in seen.items() if pid not in pids | taken and {*place} & pids}:
            pids.update(more)
    return lost, alive


def own() -> Iterator[int]:
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


def _mark(pid: int) -> tuple[str, int] | None:
    """The run that it is of, and the agent that started what it descends from; None where it is no worker's."""
    entries = (entry.partition(b"=") for entry in _read(pid, "environ").split(b"\0"))
    environment = {name: value for name, _, value in entries}
    agent = environment.get(MARKER.encode(), b"").partition(b".")[0]
    run = environment.get(b"TFLAUNCH_RUN")
    if run is None or not agent.isdigit() or not _is_counted_as_we_are(pid):
        return None
    return os.fsdecode(run), int(agent)


def _is_counted_as_we_are(pid: int) -> bool:
    """In a container, the id that a worker knows its agent by is another process's here."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    return False


def _ancestors(pid: int, seen: Mapping[int, tuple[int, int]]) -> Iterator[int]:
    """A living agent is one: it adopts whoever loses its parent."""
    while pid in seen:
        pid = seen[pid][0]
        yield pid


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
