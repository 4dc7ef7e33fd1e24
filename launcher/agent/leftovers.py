"""What earlier runs of this user have left on this host: processes whose agent is gone, and folders in the cache."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from . import strays, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_OLD = 30 * 86_400.0


def leftovers() -> dict[str, object]:
    """``runs``: how many processes each has, and whether it is ``alive``. ``folders``: ``path``, ``size``, ``old``."""
    lost, alive = strays.runs()
    runs = [{"run": run, "processes": len(pids), "alive": False} for run, pids in lost.items()]
    runs += [{"run": run, "processes": len(pids), "alive": True} for run, pids in alive.items()]
    used = _in_use()
    return {
        "runs": sorted(runs, key=lambda one: str(one["run"])),
        "folders": [{"path": path, "size": _size(path), "old": _is_old(path, used)} for path in _folders()],
    }


def tidy() -> list[str]:
    """Delete the old folders; returns their paths."""
    import shutil

    used = _in_use()
    old = [path for path in _folders() if _is_old(path, used)]
    for path in old:
        # At once, for whoever looks for it; what is in the way of the rest is nobody's any more.
        gone = f"{path}.gone-{os.getpid()}"
        with suppress(OSError):
            os.rename(path, gone)
            shutil.rmtree(gone, ignore_errors=True)
    return [path for path in old if not os.path.exists(path)]


def _folders() -> Iterator[str]:
    """The agents and the programs that are kept here."""
    code = trees.base()
    for base, beginning in ((os.path.dirname(code), "agent-"), (code, "")):
        with suppress(OSError):
            yield from sorted(
                entry.path for entry in os.scandir(base) if entry.name.startswith(beginning) and entry.is_dir()
            )


def _is_old(path: str, used: str) -> bool:
    with suppress(OSError):
        return time.time() - os.stat(path).st_mtime > _OLD and os.path.realpath(path) not in used
    return False


def _in_use() -> str:
    """All paths that processes of this user have open, are in, or were started with."""
    found = []
    for pid in strays.own():
        place = f"/proc/{pid}"
        with suppress(OSError):
            found.append(os.readlink(f"{place}/cwd"))
            found += [os.readlink(f"{place}/fd/{name}") for name in os.listdir(f"{place}/fd")]
        with suppress(OSError), open(f"{place}/cmdline", "rb") as file:
            found.append(os.fsdecode(file.read()))
    return "\n".join(found)


def _size(path: str) -> int:
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
