"""Which peers leave a process's packets unanswered: the kernel knows, and TensorFlow's errors seldom tell.

A live host acknowledges packets even for a process that is stopped or busy. Where it does not, the host or the network between is
gone. Sources: proc(5), and net/ipv4/tcp_ipv4.c for the columns.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# So often the kernel has sent a packet again, waiting twice as long each time: for 1.4 s at least.
_TRIES = 3
_RETRANSMITTING = "01"
_MAPPED = "0000000000000000FFFF0000"
# The kernel takes milliseconds for a table, however few lines it has, and a whole cluster may be looked at in a moment.
_FRESH = 0.25
# When the table of a network was read, and what was in it.
_tables: dict[str, tuple[float, Collection[tuple[str, str]]]] = {}


def unanswered(pid: int) -> list[str]:
    """The places (``address:port``) to which a process has sent something that nobody acknowledges. Empty where /proc does not tell."""
    own = _sockets(pid)
    return sorted({place for place, socket in _waiting(pid) if socket in own}) if own else []


def _sockets(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                link = os.readlink(f"/proc/{pid}/fd/{name}")
                if link.startswith("socket:"):
                    found.add(link)
    return found


def _waiting(pid: int) -> Collection[tuple[str, str]]:
    """All such places of a process's network, each with the socket."""
    with suppress(OSError):
        network = os.readlink(f"/proc/{pid}/ns/net")
        since, table = _tables.get(network, (-_FRESH, ()))
        if time.monotonic() - since >= _FRESH:
            table = tuple(entry for name in ("tcp", "tcp6") for entry in _entries(pid, name))
            _tables[network] = time.monotonic(), table
        return table
    return ()


def _entries(pid: int, name: str) -> Iterator[tuple[str, str]]:
    with suppress(OSError), open(f"/proc/{pid}/net/{name}") as file:
        next(file, None)
        for line in file:
            _, _, remote, _, _, timer, tries, _, _, inode, *_ = line.split()
            if timer.startswith(_RETRANSMITTING) and int(tries, 16) >= _TRIES:
                yield _place(remote), f"socket:[{inode}]"


def _place(column: str) -> str:
    """``10.77.0.3:20001`` for what the table has in words of the machine's own order."""
    words, _, port = column.removeprefix(_MAPPED).partition(":")
    return f"{_address(words)}:{int(port, 16)}"


def _address(words: str) -> str:
    import ipaddress
    import sys

    packed = b"".join(int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8))
    address = ipaddress.ip_address(packed)
    return str(address) if address.version == 4 else f"[{address}]"
