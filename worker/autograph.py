"""Keeps what AutoGraph generates off the disk. ``boot.py`` loads this when TensorFlow is imported.

TensorFlow 2.21 writes the code of every function that it converts to a temporary file, and removes that when the process
exits. One that is killed leaves them all, five for a training of ours, and where Python caches what it compiles an orderly
one leaves its caches too. Those who look for a function's source find it in memory as well. The interpreter's own tracebacks
show no lines of generated code then, before Python 3.13; TensorFlow's message has the user's.
"""

from __future__ import annotations

import itertools
import linecache
import sys
from types import ModuleType

_numbers = itertools.count()


def after_loader(module: ModuleType) -> None:
    """Have ``pyct.loader`` make modules without files."""
    # A TensorFlow that has it elsewhere is left as it is.
    if hasattr(module, "load_source"):
        vars(module)["load_source"] = _load_source


def _load_source(source: str, delete_on_exit: bool) -> tuple[ModuleType, str]:
    """The module that this source makes, and the name of the file that it would come from."""
    del delete_on_exit
    name = f"__autograph_generated_file{next(_numbers)}"
    file = f"<autograph>/{name}.py"
    # Without a time of change, the cache is not compared with a disk.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    made = ModuleType(name)
    made.__file__ = file
    exec(compile(source, file, "exec", dont_inherit=True), vars(made))  # noqa: S102 - what TensorFlow has generated
    sys.modules[name] = made
    return made, file
