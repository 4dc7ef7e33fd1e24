"""What workers will find on this host: their interpreter, the program, room to write, the driver of the GPUs."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress

from . import probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# An interpreter on a slow shared disk takes its time.
_PATIENCE = 20.0
# Memory that data loaders and NCCL share between processes; small in containers.
_SHARED = "/dev/shm"  # noqa: S108 - nothing is written there


def premises(
    python: str, modules: Sequence[str], folder: str, script: str, program: str, env: Mapping[str, str]
) -> dict[str, object]:
    """Look for all of it, as a worker would that is started now.

    Args:
        python: their interpreter; empty where none is needed. It is asked for ``modules``.
        folder: where they run; empty for here.
        script: a file that has to be there; empty for none.
        program: one that has to be there; empty for none.
        env: what is added to this environment.
    """
    here = {**os.environ, **env}
    folder = folder or os.getcwd()
    return {
        "python": _asked(python, modules, folder, here) if python else None,
        "lacks": dict(_lacking(folder, script, program, here)),
        "disks": [{"path": path, "free": free} for path in ("~", folder, _SHARED) if (free := _free(path)) is not None],
        "memory": _available(),
        "driver": _driver(),
    }


def _asked(python: str, modules: Sequence[str], folder: str, env: Mapping[str, str]) -> dict[str, object]:
    """What the interpreter answers (``probe.py``), or the ``error`` that keeps it from that."""
    import subprocess

    added = [os.path.join(folder, entry) for entry in env.get("PYTHONPATH", "").split(":") if entry]
    command = [python, probe.__file__, folder, *added, "--", *modules]
    where = folder if os.path.isdir(folder) else None
    try:
        said = subprocess.run(
            command, capture_output=True, check=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE, cwd=where, env=env
        )
        answer: dict[str, object] = json.loads(said.stdout)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").split("\n")
        return {"error": next((line for line in reversed(lines) if line.strip()), f"status {error.returncode}")}
    except OSError as error:
        return {"error": error.strerror or str(error)}
    except (ValueError, subprocess.SubprocessError):
        return {"error": f"it does not answer within {_PATIENCE:g} s, or not as a Python does"}
    return answer


def _lacking(folder: str, script: str, program: str, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is not there: ``folder``, ``script`` or ``program``, and its name."""
    if not os.path.isdir(folder):
        yield "folder", folder
    elif script and not os.path.exists(os.path.join(folder, script)):
        yield "script", script
    if program and not _is_program(program, folder, env):
        yield "program", program


def _is_program(name: str, folder: str, env: Mapping[str, str]) -> bool:
    if "/" in name:
        places = [os.path.join(folder, name)]
    else:
        places = [os.path.join(folder, entry, name) for entry in env.get("PATH", os.defpath).split(":")]
    return any(os.path.isfile(place) and os.access(place, os.X_OK) for place in places)


def _free(path: str) -> int | None:
    with suppress(OSError):
        disk = os.statvfs(os.path.expanduser(path))
        return disk.f_bavail * disk.f_frsize
    return None


def _available() -> int | None:
    """Memory that can be had without swapping, in bytes (proc(5))."""
    with suppress(OSError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _driver() -> str:
    """The version of the NVIDIA driver; empty where there is none."""
    with suppress(OSError), open("/proc/driver/nvidia/version") as file:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", file.readline())
        return found[1] if found else ""
    return ""
