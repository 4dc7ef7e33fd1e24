"""TensorFlow and what it imports, imported before the program asks for it, and out of sight until then.

The fork server (``warm.py``) imports; in its workers the program's own imports find it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import ModuleType

FAMILY = ("tensorflow", "keras", "tf_keras")
# What TensorFlow 2.21 and Keras 3 read while they are imported, and what not to set it stands for. launcher/imports.py
# knows more such variables: the others only decide about what is printed, and where Keras keeps its files.
DECISIVE = {
    "KERAS_BACKEND": "tensorflow",
    "TF_USE_LEGACY_KERAS": "0",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "TF2_BEHAVIOR": "1",
}
# What the repair of Keras loads where there is something to repair.
_REPAIR = (".keras3.callbacks", ".keras3.trainer")
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")


class _Recording(type(os.environ)):  # type: ignore[misc] # mypy takes no class from an expression
    """``os.environ`` while it is noted which variables are looked at."""

    read: ClassVar[set[str]] = set()

    def __getitem__(self, name: str) -> str:
        self.read.add(os.fsdecode(name))
        value: str = super().__getitem__(name)
        return value

    def __iter__(self) -> Iterator[str]:
        # Who looks at all of them may depend on any.
        self.read.update(os.fsdecode(name) for name in self._data)
        names: Iterator[str] = super().__iter__()
        return names


@contextmanager
def _reading() -> Iterator[set[str]]:
    """The names of the variables that Python code looks at meanwhile."""
    stock = type(os.environ)
    os.environ.__class__ = _Recording
    try:
        yield _Recording.read
    finally:
        os.environ.__class__ = stock


class Imported:
    """What the import brought, put away; as a finder, what the worker's own imports get it from.

    Attributes:
        read: the environment variables that the import depended on, as far as Python code looked at them.

    It is made and hidden in the fork server. In its workers importing one of the packages brings that one back, and importing
    TensorFlow or Keras brings back all.
    """

    def __init__(self, after_import: Mapping[str, tuple[str, str]]) -> None:
        self._decided = {name: os.environ.get(name, default) for name, default in DECISIVE.items()}
        self._filters, self._finders = list(warnings.filters), list(sys.meta_path)
        before = _packages(sys.modules)
        with _reading() as self.read:
            self._words = _import_quietly()
        now = list(warnings.filters)
        self._first_filters = list(takewhile(lambda one: one not in self._filters, now))
        self._last_filters = [one for one in now[len(self._first_filters) :] if one not in self._filters]
        self._changes = dict(_load_changes(after_import))
        self._new_finders = [one for one in sys.meta_path if one not in self._finders]
        packages = _packages(sys.modules) - before - sys.stdlib_module_names
        # Under copies of their names, which lie beside each other: each worker will count a reference more to all of them, and
        # has pages of its own then. It is 3.5 MB less.
        self._modules = {
            name.encode().decode(): one for name, one in sys.modules.items() if name.partition(".")[0] in packages
        }
        with suppress(KeyError, AttributeError):
            # A file of the user's may have decided.
            self._decided["KERAS_BACKEND"] = self._modules["keras"].config.backend()
        # In the order of their import.
        self._specs = {name: one.__spec__ for name, one in self._modules.items() if name in packages}

    def hide(self) -> None:
        """Have it look as if nothing had been imported."""
        for name in self._modules:
            del sys.modules[name]
        sys.meta_path[:] = self._finders
        self._set_filters(self._filters)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Finds the packages themselves; their modules are in sys.modules by the time that they are looked for."""
        return ModuleSpec(name, self) if name in self._specs else None  # type: ignore[arg-type] # a loader by its methods

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that was imported before."""
        if spec.name in FAMILY:
            self._require_same_environment()
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Put the package back, and whatever else the import of it did."""
        whole = module.__name__ in FAMILY
        self._put_back(self._specs if whole else [module.__name__])
        if whole:
            self._finish_import()

    def _put_back(self, packages: Iterable[str]) -> None:
        seeded = "numpy.random" in sys.modules
        for name, module in self._modules.items():
            if name.partition(".")[0] in packages:
                sys.modules.setdefault(name, module)
        for name in packages:
            self._modules[name].__spec__ = self._specs[name]
        # With the first of them: that of six finds modules of its own.
        sys.meta_path[:0] = [one for one in self._new_finders if one not in sys.meta_path]
        if "numpy" in packages:
            _set_blas_threads()
            # NumPy 2 imports it when it is asked for.
            if "numpy.random" in sys.modules and not seeded:
                sys.modules["numpy.random"].seed()

    def _finish_import(self) -> None:
        sys.meta_path.remove(self)
        self._set_filters([*self._first_filters, *warnings.filters, *self._last_filters])
        if self._words:
            sys.stderr.flush()
            os.write(2, self._words)
        for name, change in self._changes.items():
            if name in self._modules:
                change(self._modules[name])

    def _require_same_environment(self) -> None:
        for name, value in self._decided.items():
            if os.environ.get(name, value) != value:
                raise ImportError(
                    f"{name} was set too late: this worker was started warm (--cold, or warm=False, avoids it)"
                )

    @staticmethod
    def _set_filters(filters: list[Any]) -> None:
        warnings.filters[:] = filters  # type: ignore[index] # a list, though typeshed promises less
        warnings._filters_mutated()  # type: ignore[attr-defined] # what warnings.filterwarnings calls


def _packages(modules: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def _import_quietly() -> bytes:
    """Import TensorFlow and the Keras that it uses; returns what that printed."""
    kept = os.dup(1), os.dup(2)
    held = os.memfd_create("import")
    for descriptor in (1, 2):
        os.dup2(held, descriptor)
    try:
        importlib.import_module("tensorflow")
        if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in {"1", "true"}:
            importlib.import_module("tf_keras")
        _look_up_what_is_not_there()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        words = os.pread(held, os.fstat(held).st_size, 0)
        os.close(held)
    return words


def _load_changes(after_import: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """What is to be done with modules once a program imports them, with all that it takes: loaded here, once."""
    for name, (file, function) in after_import.items():
        if name in sys.modules:
            yield name, getattr(importlib.import_module(f".{file}", __package__), function)
    for file in _REPAIR if "keras" in sys.modules else ():
        # Whether this Keras can be repaired is found out, and told, in the workers.
        with suppress(Exception):
            importlib.import_module(file, __package__)


def _look_up_what_is_not_there() -> None:
    """Have TensorFlow copy the definitions of all operations, for a line in a log that nobody keeps.

    2.21 does so once in a process, the first time that it finds none of a name, as it does in each worker's first collective:
    10 ms, and 2.4 MB. A TensorFlow that has its registry elsewhere does it in the workers.
    """
    with suppress(Exception):
        sys.modules["tensorflow.python.framework.op_def_registry"].get("tflaunch")


def _set_blas_threads() -> None:
    """Give OpenBLAS the threads that it would have taken when it was loaded; the fork server allows it none but its own."""
    wanted = next((os.environ[name] for name in BLAS_THREADS if os.environ.get(name, "").isdigit()), None)
    number = int(wanted) if wanted else len(os.sched_getaffinity(0))
    with suppress(OSError):
        maps = Path("/proc/self/maps").read_text().splitlines()
        files = {line.split(maxsplit=5)[5] for line in maps if "openblas" in line}
        for library in map(ctypes.CDLL, sorted(files)):
            for name in (
                f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")
            ):
                if hasattr(library, name):
                    getattr(library, name)(number)
