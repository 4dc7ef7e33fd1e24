"""What every task of a test's cluster is to do, on its way there; and what each of them made of it, on its way back.

The far side is ``worker/call.py``. Both ways go through files in one folder, which have no limit to their size.
"""

from __future__ import annotations

import pickle
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.errors import RequestError
from launcher.testing.pickling import name_of, pickled, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class Work(NamedTuple):
    """A function with its arguments, pickled; or the command line of a script.

    Attributes:
        source: the Python file that defines it; empty when there is none.
    """

    name: str
    function: bytes | None = None
    script: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def of(cls, function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> Work:
        """A function's call.

        Raises:
            RequestError: something in it cannot be pickled.
        """
        name = re.sub(r"\W+", "", name_of(function), flags=re.ASCII) or "run"
        return cls(name, pickled(function, args, kwargs), source=source_of(function))

    @classmethod
    def of_script(cls, path: Path, args: Sequence[str]) -> Work:
        """A script's command line.

        Raises:
            RequestError: there is no such script.
        """
        if not path.exists():
            raise RequestError(f"no such script: {path}")
        return cls(path.stem, script=(str(path), *map(str, args)), source=str(path))


class Answer(NamedTuple):
    """What one task left behind.

    Attributes:
        value: what the function returned, pickled; None when it did not return.
        error: the exception that ended it, pickled; None when there was none, or it cannot be pickled.
        unprivileged: what the system did not let the task do to itself.
    """

    value: bytes | None = None
    error: bytes | None = None
    traceback: str = ""
    unprivileged: str = ""


class Call:
    """The folder through which one run's work and answers go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.payload = folder / "payload.pickle"

    def send(self, work: Work, faults: Mapping[str, Mapping[str, object]]) -> None:
        """Write down what the tasks are to do. ``faults``: by task (``worker:1``), see ``worker/faults.py``."""
        self._folder.mkdir(mode=0o700)
        order = {"function": work.function, "script": list(work.script), "path": sys.path, "faults": faults}
        self.payload.write_bytes(pickle.dumps(order))

    def answer(self, slug: str) -> Answer:
        """What the task ``worker-1`` left behind."""
        found: dict[str, Any] = {}
        with suppress(FileNotFoundError):
            found = pickle.loads((self._folder / f"{slug}.pickle").read_bytes())  # noqa: S301 - our own task's
        return Answer(**found)
