"""What earlier runs of this user have left on this host: processes whose agent is gone, and folders in the cache."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from . import strays, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_OLD = 30 * 86_400.0
_MOMENT = 0.1
# As landing.py has it, which comes to a host alone.
_MOORINGS = f"/tmp/tflaunch-{os.getuid()}"  # noqa: S108 - see there


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
    """Delete the old folders, and the sockets of agents that are gone; returns the paths of the folders."""
    import shutil

    _delete_sockets()
    used = _in_use()
    old = [path for path in _folders() if _is_old(path, used)]
    for path in old:
        # At once, for whoever looks for it; what is in the way of the rest is nobody's any more.
        gone = f"{path}.gone-{os.getpid()}"
        with suppress(OSError):
            os.rename(path, gone)
            shutil.rmtree(gone, ignore_errors=True)
    return [path for path in old if not os.path.exists(path)]


def _delete_sockets() -> None:
    with suppress(OSError):
        dead = [
            entry.path
            for entry in os.scandir(_MOORINGS)
            if stat.S_ISSOCK(entry.stat().st_mode) and _is_dead(entry.path)
        ]
        # One that was made just now may not have been listened at yet.
        time.sleep(_MOMENT if dead else 0)
        for path in filter(_is_dead, dead):
            os.unlink(path)


def _is_dead(path: str) -> bool:
    """Whether nobody listens at a socket any more."""
    import socket

    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


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
