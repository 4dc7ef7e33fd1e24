"""What goes wrong inside a task because a test wants it to: the task does it to itself, so it happens at the very step.

``call.py`` loads it; no other worker does.
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Linux: mount(2), unshare(2).
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000

_libc = ctypes.CDLL(None, use_errno=True)


def at_steps(boot: Any, faults: Sequence[tuple[int, str]]) -> None:  # noqa: ANN401 - boot.py, the module
    """Send signals to this process when it has reported these steps: nothing of it runs between report and signal.

    Args:
        faults: (step, name of a signal); a report may leave steps out.
    """
    if not faults:
        return
    told, owner, left = boot.report, os.getpid(), sorted(faults)

    def report(kind: str, **fields: object) -> None:
        told(kind, **fields)
        step = fields.get("step")
        if kind != "progress" or not isinstance(step, int) or os.getpid() != owner:
            return
        while left and left[0][0] <= step:
            os.kill(owner, signal.Signals[left.pop(0)[1]])

    boot.report = report


def full_disk(path: str, room: int) -> None:
    """Put a disk of its own in place of a directory, for this process and its children, with ``room`` bytes left on it.

    It is a tmpfs in a mount namespace of the process, which goes when the process does.

    Raises:
        OSError: the system does not let us.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        _enter_own_mounts()
        # Never less than a page, so one is taken.
        _mount("tmpfs", path, 0, f"size={page + -(-room // page) * page}")
    except OSError as error:
        raise OSError(error.errno, f"no disk of its own can be mounted at {path} here: {error.strerror}") from None
    (Path(path) / ".full").write_bytes(bytes(page))


_entered = False


def _enter_own_mounts() -> None:
    global _entered  # noqa: PLW0603 - a namespace is the process's, so is the memory of it
    if _entered:
        return
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWNS) != 0:
        if _libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "it takes root, or user namespaces")
        # The kernel accepts an unprivileged gid_map only after setgroups is denied (user_namespaces(7)).
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    _mount("none", "/", _MS_REC | _MS_PRIVATE, "")
    _entered = True


def _mount(source: str, target: str, flags: int, options: str) -> None:
    _check(_libc.mount(source.encode(), os.fsencode(target), source.encode(), ctypes.c_ulong(flags), options.encode()))


def _check(status: int) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
