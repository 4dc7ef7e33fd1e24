"""Calls what a test has sent to every task, and leaves the answer beside it, where the test finds it.

``boot.py`` loads it for ``--call PAYLOAD``. The payload is a pickled mapping:

    function   a function with its arguments, pickled by cloudpickle; or
    script     a script with its arguments, run as boot would run it
    path       ``sys.path`` of the test
    faults     by task, what goes wrong in it: see faults.py

The answer is a pickled mapping in ``<job>-<index>.pickle``, with ``value``, or ``error`` and ``traceback``, or
``unprivileged``. A file for each task has no limit to its size, and is there whole or not at all.
"""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Longer than a collective takes to arrive, and no more than it takes to take TensorFlow apart.
PATIENCE = 0.5


def answer(payload: str) -> None:
    """Do what the payload says. An exception is left behind too, and ends the process as any other."""
    folder = Path(payload).parent
    task = os.environ["TFLAUNCH_TASK"]
    slug = task.replace(":", "-")
    order: dict[str, Any] = pickle.loads(Path(payload).read_bytes())  # noqa: S301 - our own test's
    try:
        prepare(order["faults"].get(task, {}))
    except OSError as error:
        leave(folder, slug, {"unprivileged": error.strerror})
        sys.exit(error.strerror)
    try:
        value = run_script(order["script"]) if order["script"] else call(order)
    except Exception as error:
        leave(folder, slug, told(error))
        raise
    leave(folder, slug, {"value": value})
    if not order["script"]:
        await_peers(folder, order["faults"])
        end()


def await_peers(folder: Path, tasks: Iterable[str]) -> None:
    """Stay until all that trained together have answered, or for a moment.

    A worker's last collective is over before its peers have fetched their part of it from here (TensorFlow 2.21: they pull).
    If it is gone by then, they fail.
    """
    deadline = time.monotonic() + PATIENCE
    missing = [folder / f"{task.replace(':', '-')}.pickle" for task in tasks if task.startswith(("chief:", "worker:"))]
    while missing and time.monotonic() < deadline:
        missing = [file for file in missing if not file.exists()]
        time.sleep(0.005 if missing else 0)


def end() -> NoReturn:
    """End well, as multiprocessing ends its processes: without taking apart first all that was imported.

    Of 0.7 s for a cluster of 4 forked workers with an all-reduce, that took 0.3 s (TensorFlow 2.21, 2 cores).
    """
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def prepare(mine: Mapping[str, Any]) -> None:
    """Have things go wrong, now or later.

    Raises:
        OSError: the system does not let us.
    """
    for path, room in mine.get("disks", ()):
        faults.full_disk(path, room)
    faults.at_steps(boot(), mine.get("steps", ()))


def call(order: Mapping[str, Any]) -> bytes:
    """Call the function; its value comes back pickled.

    Raises:
        TypeError: the value cannot be pickled.
    """
    sys.meta_path.append(boot().PackageFinder)
    sys.path[:] = order["path"]
    import cloudpickle

    function, args, kwargs = pickle.loads(order["function"])  # noqa: S301 - our own test's
    value = function(*args, **kwargs)
    try:
        pickled: bytes = cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - TypeError, PicklingError, RecursionError, whatever a __reduce__ raises
        name = getattr(function, "__name__", "the function")
        raise TypeError(f"{name} returned a {type(value).__name__} that cannot be pickled: {error}") from None
    return pickled


def run_script(command: list[str]) -> bytes:
    """Become the script, as boot does; it has no value."""
    sys.argv[:] = command
    sys.orig_argv[-2:] = command
    boot().run_script()
    return pickle.dumps(None)


def told(error: Exception) -> dict[str, object]:
    """What is left of an exception: its traceback, and itself if it can be pickled."""
    import traceback

    import cloudpickle

    error.__traceback__ = boot().without_boot(error.__traceback__)
    try:
        pickled = cloudpickle.dumps(error)
    except Exception:  # noqa: BLE001 - see above
        pickled = None
    return {"error": pickled, "traceback": "".join(traceback.format_exception(error))}


def leave(folder: Path, slug: str, content: Mapping[str, object]) -> None:
    partial = folder / f"{slug}.partial"
    partial.write_bytes(pickle.dumps(dict(content)))
    partial.replace(folder / f"{slug}.pickle")


def boot() -> Any:  # noqa: ANN401 - a module, under the name that it runs by
    return sys.modules["_tflaunch_boot"]
