"""Whether there is memory for so many tasks at all: to find out by starting them takes the machine along."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from launcher.errors import UnavailableError

# What a Python that has imported nothing needs for itself (3.11 to 3.14: 6 to 8 MiB that it shares with nobody).
_LEAST = 6 << 20


def require(tasks: int) -> None:
    """Check that so many tasks can be there at the same time.

    Raises:
        UnavailableError: they cannot.
    """
    free = _free()
    if free is not None and tasks * _LEAST > free:
        needed, there = (f"{size / 2**30:.1f} GiB" for size in (tasks * _LEAST, free))
        raise UnavailableError(
            f"{tasks} tasks need {needed} of memory, before they import anything: {there} are free", "ask for fewer"
        )


def _free() -> int | None:
    """Free memory in bytes, of the machine or of the container, whichever is less; None where nobody says."""
    found = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    return None


def _of_container() -> int | None:
    with suppress(OSError, ValueError):  # "max" is no number
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    return None
