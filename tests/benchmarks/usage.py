"""What processes use of the machine, as /proc tells it: CPU time, wake-ups, memory."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.benchmarks.trial import Watch

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_INTERVAL = 0.1


class Effort(NamedTuple):
    """What some processes have used so far: nanoseconds of CPU, and how often they were woken up."""

    cpu: int
    wakeups: int


def effort(pids: Collection[int]) -> Effort:
    """What these processes have used so far, in the threads that they have now."""
    each = [_of_thread(thread) for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    return Effort(sum(one.cpu for one in each), sum(one.wakeups for one in each))


def memory(pids: Collection[int]) -> int:
    """Bytes that these processes hold, each shared page counted once (PSS)."""
    return sum(_held(pid).all for pid in pids)


class Meter:
    """Looks at processes now and then, at each of them as long as it is there.

    Args:
        beside: sees others end, who have pages of files in common with them. Once one of these has ended, those pages count
            more for the rest, who hold no more than before. So from then on they are counted as they were.

    Attributes:
        memory: the bytes that they held at each look.
    """

    def __init__(self, pids: Collection[int], beside: Watch | None = None) -> None:
        self._beside = beside
        self._first = {pid: _cpu(pid) for pid in pids}
        self._last = dict(self._first)
        self._of_files = 0
        self.memory: list[int] = []
        self._look_at_memory()
        self._next = time.monotonic() + _INTERVAL

    @property
    def cpu(self) -> float:
        """The seconds of CPU that they have used, from the first look to the last."""
        return sum(self._last.values()) - sum(self._first.values())

    def look(self) -> None:
        """Look again, unless that was a moment ago."""
        now = time.monotonic()
        if now < self._next:
            return
        # Looking is work too, which is not to be what is measured. Its own CPU time counts: on a busy machine it waits for long.
        began = time.thread_time()
        for pid in self._last:
            with suppress(OSError):
                self._last[pid] = _cpu(pid)
        self._look_at_memory()
        self._next = time.monotonic() + max(_INTERVAL, 20 * (time.thread_time() - began))

    def _look_at_memory(self) -> None:
        held = [one for pid in self._last if (one := _still_held(pid))]
        if self._beside is None or self._beside.all_are_there:
            self._of_files = sum(one.all - one.own for one in held)
        if held:
            self.memory.append(sum(one.own for one in held) + self._of_files)


def _of_thread(thread: Path) -> Effort:
    # schedstat counts nanoseconds, where stat counts ticks of 10 ms: more than an idle launcher uses in a second.
    cpu = int((thread / "schedstat").read_text().split()[0])
    return Effort(cpu, sum(_switches((thread / "status").read_text())))


def _switches(status: str) -> Iterator[int]:
    for line in status.splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            yield int(line.split()[1])


def _cpu(pid: int) -> float:
    # The name, in brackets, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


class _Held(NamedTuple):
    """What a process holds in bytes, each shared page in parts (PSS): all of it, and what nobody but its own children may share."""

    all: int
    own: int


def _still_held(pid: int) -> _Held | None:
    with suppress(OSError):
        return _held(pid)
    return None


def _held(pid: int) -> _Held:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
    return _Held(1024 * kilobytes["Pss"], 1024 * kilobytes["Pss_Anon"])
