"""What ``ps`` and /proc show of a process that was forked: its own arguments and environment, as if it had been started.

Sources: prctl(2) PR_SET_MM_MAP, proc(5), linux/prctl.h.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PR_SET_MM = 35
_PR_SET_MM_MAP = 14

_libc = ctypes.CDLL(None)
_shown: list[object] = []


class _Map(ctypes.Structure):
    """``struct prctl_mm_map`` of linux/prctl.h."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data")),
        *((name, ctypes.c_uint64) for name in ("start_brk", "brk", "start_stack")),
        *((name, ctypes.c_uint64) for name in ("arg_start", "arg_end", "env_start", "env_end", "auxv")),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


def appear_as(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Have ``ps`` and /proc show this worker's own arguments and environment, not the fork server's.

    The agent finds a worker's descendants by their environment. A kernel without CONFIG_CHECKPOINT_RESTORE refuses: then
    the fork server's are shown, and the agent goes by sessions and pipes.
    """
    arguments = b"".join(os.fsencode(one) + b"\0" for one in argv)
    environment = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    text = ctypes.create_string_buffer(arguments + environment)
    start = ctypes.addressof(text)
    # Fields are numbered from 1 in proc(5); the name, field 2, may hold spaces.
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - the import of pathlib would cost each worker 1 ms at its end
        stat = [b"", b"", b"", *file.read().rpartition(b")")[2].split()]
    break_now = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_long)(("sbrk", _libc))(0)
    layout = _Map(
        *(int(stat[field]) for field in (26, 27, 45, 46, 47)),
        brk=break_now,
        start_stack=int(stat[28]),
        arg_start=start,
        arg_end=start + len(arguments),
        env_start=start + len(arguments),
        env_end=start + len(arguments) + len(environment),
        exe_fd=0xFFFFFFFF,
    )
    if _libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(layout), ctypes.sizeof(layout), 0) == 0:
        _shown.append(text)
