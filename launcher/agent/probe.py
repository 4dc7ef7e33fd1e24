"""What a Python interpreter finds to run: imported by the launcher for its own, run as a file by any other, on any host.

    PYTHON probe.py PATH... -- MODULE...      prints an Answer as JSON

As a file it meets interpreters that are too old for anything else of ours: it keeps to what Python 3.7 can read, and to
the standard library. Nothing of the user's is imported: a package's own code is not run to look for what is inside it.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from typing import TypedDict

    class Finding(TypedDict):
        """Of one module: its first part that is not there, if any; whether ``python -m`` can run it; its file.

        ``version`` is told of what PACKAGES knows, as far as its installer has noted it down.
        """

        missing: str | None
        runs: bool
        origin: str | None
        version: str | None

    class Answer(TypedDict):
        """``version`` is the interpreter's; ``modules`` has a finding for each name that was asked for."""

        version: list[int]
        modules: dict[str, Finding]


# The packages that modules come in: TensorFlow has another for each kind of machine.
PACKAGES = {
    "tensorflow": r"tensorflow(_cpu|_cpu_aws|_gpu|_intel|_macos|_aarch64|_rocm)?|tf_nightly(_cpu)?",
    "keras": r"keras(_nightly)?",
}


def look(folders: Sequence[str], names: Sequence[str]) -> Answer:
    """Look for modules in ``folders``, then where this interpreter looks."""
    path = [*folders, *sys.path]
    return {"version": list(sys.version_info[:3]), "modules": {name: _find(name, path) for name in names}}


def _find(name: str, path: list[str]) -> Finding:
    spec: ModuleSpec | None = None
    inside: list[str] | None = path
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        whole = ".".join(parts[:depth])
        spec = _spec(whole, inside, top=depth == 1)
        if spec is None:
            return {"missing": whole, "runs": False, "origin": None, "version": None}
        inside = list(spec.submodule_search_locations) if spec.submodule_search_locations else None
    runs = inside is None or PathFinder.find_spec(name + ".__main__", inside) is not None
    origin = spec.origin if spec else None
    return {"missing": None, "runs": runs, "origin": origin, "version": _version(name, origin)}


def _version(name: str, origin: str | None) -> str | None:
    # What importlib.metadata would say, which takes as long to import as the interpreter takes to start.
    if name not in PACKAGES or origin is None:
        return None
    noted = re.compile(rf"(?:{PACKAGES[name]})-(\d[^-]*)\.(?:dist|egg)-info", re.IGNORECASE)
    found = map(noted.fullmatch, os.listdir(os.path.dirname(os.path.dirname(origin))))
    return next((match[match.lastindex or 0] for match in found if match), None)


def _spec(name: str, path: list[str] | None, *, top: bool) -> ModuleSpec | None:
    spec = None if path is None else PathFinder.find_spec(name, path)
    if spec is not None or not top:
        return spec
    # Editable installs and built-in modules are found by finders of their own.
    found = (finder.find_spec(name, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((one for one in found if one is not None), None)


if __name__ == "__main__":
    import json

    # This file's own folder, which Python put first, is none that the workers will look in.
    del sys.path[0]
    at = sys.argv.index("--")
    print(json.dumps(look(sys.argv[1:at], sys.argv[at + 1 :])))
