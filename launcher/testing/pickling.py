"""Functions as bytes: by value for the module that defines them, so that no task has to import a test."""

from __future__ import annotations

import inspect
import io
import sys
from collections import ChainMap
from contextlib import contextmanager, suppress
from functools import cache, partial
from types import CodeType
from typing import TYPE_CHECKING, Any

from launcher.errors import RequestError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType


def name_of(function: Callable[..., object]) -> str:
    """What to call it."""
    return str(getattr(_inner(function), "__name__", type(function).__name__))


def source_of(function: Callable[..., object]) -> str:
    """The Python file that defines it; empty when there is none."""
    return getattr(_module_of(function), "__file__", None) or ""


def pickled(function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """A call, to be loaded by pickle.

    Raises:
        RequestError: something in it cannot be pickled; the message names it.
        UnavailableError: cloudpickle is not installed.
    """
    with _by_value(_module_of(function)):
        try:
            return _dumps((function, args, kwargs))
        except Exception as error:  # noqa: BLE001 - TypeError, PicklingError, RecursionError, whatever a __reduce__ raises
            culprit = _culprit(function, args, kwargs) or error
            hint = "make it inside the function: each task is a process of its own"
            raise RequestError(f"{name_of(function)} cannot be sent to its tasks: {culprit}", hint) from None


def _dumps(value: object) -> bytes:
    file = io.BytesIO()
    _pickler()(file).dump(value)
    return file.getvalue()


@cache
def _pickler() -> Any:  # noqa: ANN401 - a class of cloudpickle, which has no types
    """cloudpickle's, with the names of files in code: it leaves them out (3.1), and tracebacks would show no lines."""
    pickler = _cloudpickle().Pickler
    reduce = pickler.dispatch_table[CodeType]

    def reduce_code(code: CodeType) -> tuple[Any, ...]:
        make, args = reduce(code)
        return make, tuple(code.co_filename if one == "<dynamic-code>" else one for one in args)

    return type("Pickler", (pickler,), {"dispatch_table": ChainMap({CodeType: reduce_code}, pickler.dispatch_table)})


def _cloudpickle() -> ModuleType:
    try:
        import cloudpickle
    except ImportError:
        hint = "pip install 'tflaunch[pytest]'"
        raise UnavailableError("functions are sent to tasks by cloudpickle, which is not installed", hint) from None
    module: ModuleType = cloudpickle
    return module


@contextmanager
def _by_value(module: ModuleType | None) -> Iterator[None]:
    """Pickle by value what a module defines, unless it is installed: that is there for a task to import."""
    if module is None or _is_installed(module):
        yield
        return
    _cloudpickle().register_pickle_by_value(module)
    try:
        yield
    finally:
        _cloudpickle().unregister_pickle_by_value(module)


def _is_installed(module: ModuleType) -> bool:
    # By value, os.getenv would look into a copy of the test's environment.
    file = getattr(module, "__file__", None)
    in_library = module.__name__.partition(".")[0] in sys.stdlib_module_names
    return not file or in_library or "site-packages" in file or "dist-packages" in file


def _culprit(function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """The first thing that a call uses which cannot be pickled by itself, in words; empty when there is none."""
    for name, value in _used(function, args, kwargs):
        try:
            _dumps(value)
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


def _module_of(function: Callable[..., object]) -> ModuleType | None:
    return sys.modules.get(getattr(_inner(function), "__module__", None) or "")


def _inner(function: Any) -> Any:  # noqa: ANN401 - any callable
    while isinstance(function, partial):
        function = function.func
    return function
