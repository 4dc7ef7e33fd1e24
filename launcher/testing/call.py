"""What every task of a test's cluster is to do, on its way there; and what each of them made of it, on its way back.

The far side is ``worker/call.py``. Both ways go through files in one folder, which have no limit to their size.
"""

from __future__ import annotations

import inspect
import pickle
import re
import sys
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType


class Work(NamedTuple):
    """A function with its arguments, pickled; or the command line of a script."""

    name: str
    function: bytes | None = None
    script: tuple[str, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> Work:
        """Pickle a call.

        Raises:
            RequestError: something in it cannot be pickled; the message names it.
        """
        name = getattr(_inner(function), "__name__", type(function).__name__)
        return cls(re.sub(r"\W+", "", name) or "run", _pickled(function, name, args, kwargs))


class Answer(NamedTuple):
    """What one task left behind.

    Attributes:
        value: what the function returned, pickled; None when it did not return.
        error: the exception that ended it, pickled; None when there was none, or it cannot be pickled.
        unprivileged: what the system did not let the task do to itself.
        stacks: where its threads were when the time was over.
    """

    value: bytes | None = None
    error: bytes | None = None
    traceback: str = ""
    unprivileged: str = ""
    stacks: str = ""


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
        return Answer(**found, stacks=self._stacks(slug))

    def _stacks(self, slug: str) -> str:
        with suppress(FileNotFoundError):
            lines = (self._folder / f"{slug}.stacks").read_text(errors="replace").splitlines()
            return "\n".join(line for line in lines if not _OURS.search(line))
        return ""


# The frames beneath the function's own.
_OURS = re.compile(r"/worker/(start|boot|call)\.py\"|<frozen importlib")


def _inner(function: Any) -> Any:  # noqa: ANN401 - any callable
    while isinstance(function, partial):
        function = function.func
    return function


def _pickled(function: Callable[..., object], name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    import cloudpickle

    with _by_value(sys.modules.get(getattr(_inner(function), "__module__", None) or "")):
        try:
            pickled: bytes = cloudpickle.dumps((function, args, kwargs))
        except Exception as error:  # noqa: BLE001 - TypeError, PicklingError, RecursionError, whatever a __reduce__ raises
            culprit = _culprit(function, args, kwargs)
            hint = "make it inside the function: each task is a process of its own"
            raise RequestError(f"{name} cannot be sent to its tasks: {culprit or error}", hint) from None
    return pickled


@contextmanager
def _by_value(module: ModuleType | None) -> Iterator[None]:
    """Pickle all of a module's own by value, so that no task has to import it: a test module may not be importable."""
    import cloudpickle

    if module is None or not getattr(module, "__file__", None):
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _culprit(function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """The first thing that a call uses which cannot be pickled by itself, in words; empty when there is none."""
    import cloudpickle

    for name, value in _used(function, args, kwargs):
        try:
            cloudpickle.dumps(value)
        except Exception as error:  # noqa: BLE001 - see above
            return f"{name}, a {type(value).__name__}, cannot be pickled ({error})"
    return ""


def _used(
    function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> Iterator[tuple[str, object]]:
    with suppress(TypeError):  # not a Python function
        used = inspect.getclosurevars(_inner(function))
        yield from {**used.globals, **used.nonlocals}.items()
    yield from ((f"argument {number}", value) for number, value in enumerate(args, 1))
    yield from kwargs.items()
