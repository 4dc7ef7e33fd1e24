"""A script's code, compiled once for all workers of this machine instead of by each.

Python keeps the code of what is imported, never that of the file it is started with. In a worker that does nothing, compiling a file of
one line takes 2 ms of CPU, a seventh of all that it takes: the compiler's first use makes the types of the syntax tree (Python 3.11).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from launcher import preflight
from launcher.config import Script

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.config import ClusterConfig

# What worker/boot.py takes from the environment.
VARIABLE = "TFLAUNCH_COMPILED"


def keep(config: ClusterConfig, workers: int, folder: Path) -> dict[str, str]:
    """Put the code of a script into ``folder``, where that pays. Returns what its workers are told.

    It does with more workers than cores: one that would have a core to itself compiles beside the others. Each worker
    checks that the code is that of the source that it finds, and made by its own version of Python.
    """
    match config.command:
        case Script(path) if config.engine == "local" and workers > (os.cpu_count() or 1) and not sys.flags.optimize:
            file = os.path.join(preflight.folder(config), path)  # noqa: PTH118 - not normalised, as Python has it
            compiled = folder / "program.pyc"
            return {VARIABLE: str(compiled.absolute())} if _compiled(file, str(compiled)) else {}
    return {}


def _compiled(file: str, target: str) -> bool:
    import py_compile
    import warnings

    checked = py_compile.PycInvalidationMode.CHECKED_HASH
    try:
        # A file that cannot be compiled, or not in silence, is left to the workers: what Python says of it, they say.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            py_compile.compile(file, target, file, doraise=True, optimize=0, invalidation_mode=checked)
    except Exception:  # noqa: BLE001 - whatever it is, a worker meets it again
        return False
    return True
