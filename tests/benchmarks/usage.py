"""What processes use of the machine, as /proc tells it: CPU time, wake-ups, memory."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

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
    return sum(_pss(pid) for pid in pids)


class Meter:
    """Looks at processes now and then, at each of them as long as it is there.

    Attributes:
        memory: the bytes that they held at each look.
    """

    def __init__(self, pids: Collection[int]) -> None:
        self._first = {pid: _cpu(pid) for pid in pids}
        self._last = dict(self._first)
        self.memory = [memory(pids)]
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
        if held := sum(map(_still_held, self._last)):
            self.memory.append(held)
        self._next = time.monotonic() + max(_INTERVAL, 20 * (time.thread_time() - began))


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


def _still_held(pid: int) -> int:
    with suppress(OSError):
        return _pss(pid)
    return 0


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
