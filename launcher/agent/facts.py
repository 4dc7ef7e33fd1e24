"""What this host is: name, Python, cores, memory, GPUs, the ways in from outside. Gathered once, cheaply."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

# Variables that divide a machine among workers. Where one is set already, its owner decided, and we leave it alone.
DIVIDERS = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
# And those that say how to print, and how to allocate memory: mallopt(3) has their names.
_MALLOC = ("MMAP_MAX_", "MMAP_THRESHOLD_", "TRIM_THRESHOLD_", "TOP_PAD_", "ARENA_MAX", "ARENA_TEST")
KEPT = (*DIVIDERS, "PYTHONUNBUFFERED", "GLIBC_TUNABLES", *(f"MALLOC_{name}" for name in _MALLOC))


def gather() -> dict[str, object]:
    """The facts of this host, as JSON takes them."""
    return {
        "hostname": os.uname().nodename,
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "code": str(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))),
        "cores": cores(),
        "memory": _memory(),
        "gpus": gpus(),
        "set": [name for name in KEPT if name in os.environ],
        "exposed": exposed(),
        "clock": time.time(),
        "pid": os.getpid(),
    }


def cores() -> list[int]:
    """The CPUs that this process may use; where there is no affinity, all of them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def gpus() -> list[str]:
    """The GPUs to hand out: those the user made visible, else every NVIDIA device of the host."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # CUDA stops at the first invalid entry, so "-1" is the common way to say "none".
        entries = [entry.strip() for entry in visible.split(",")]
        valid = entries[: entries.index("-1")] if "-1" in entries else entries
        return [entry for entry in valid if entry]
    found = []
    with suppress(OSError):
        found = sorted(int(name[6:]) for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdigit())
    return [str(index) for index in found]


def exposed() -> list[str]:
    """The addresses at which others can reach this host, hence its TensorFlow servers: IPv4, or else IPv6."""
    # The local routing table has one "host LOCAL" entry below each address. Asking every interface would take `socket`,
    # which takes 3 ms to import.
    found = []
    above = ""
    for line in _lines("/proc/net/fib_trie"):
        if line.strip() == "/32 host LOCAL":
            found.append(above.rsplit(maxsplit=1)[-1])
        above = line
    return list(dict.fromkeys(address for address in found if not address.startswith("127."))) or _exposed6()


def _exposed6() -> list[str]:
    # Scope 00 is global; link-local and loopback addresses have others.
    rows = (line.split() for line in _lines("/proc/net/if_inet6"))
    return [":".join(row[0][i : i + 4] for i in range(0, 32, 4)) for row in rows if row[3] == "00"]


def _lines(path: str) -> list[str]:
    with suppress(OSError), open(path) as file:
        return file.read().splitlines()
    return []


def _memory() -> int | None:
    with suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
