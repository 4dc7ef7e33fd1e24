"""Which tasks are forked from a process that has imported TensorFlow already, or nothing, and what has to be right for that."""

from __future__ import annotations

import os
from collections import Counter
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher import imports, preflight
from launcher.agent import kernel
from launcher.config import Function, Module, Program, Script
from launcher.imports import Imports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.config import ClusterConfig, HostSpec

# What our own trainer does before it imports TensorFlow (worker/__main__.py).
_TRAINER = Imports(True, {"KERAS_BACKEND": "tensorflow"}, {"TF_CPP_MIN_LOG_LEVEL": "2"})


# Milliseconds, of Python 3.11 on two cores: starting the interpreter takes so much of a core; a fork of one that has started keeps
# the only process that can for so long; and that one has to start first. By itself it takes 15, but with 6 workers nothing was
# gained yet, with 12 a tenth: hence 40 (docs/warm-start.md).
_START, _FORK, _READY = 12, 2, 40


class Warm(NamedTuple):
    """The process that tasks are forked from.

    Attributes:
        module: what it has imported, ``tensorflow`` or nothing.
        early: variables to import it with, because the program sets them before it does.
    """

    module: str = "tensorflow"
    early: Mapping[str, str] = {}


class Warmth(NamedTuple):
    """The decision.

    Attributes:
        tasks: numbers of the tasks that are forked.
        warm: from what.
        notes: why not, where one would expect it.
    """

    tasks: frozenset[int] = frozenset()
    warm: Warm = Warm()
    notes: tuple[str, ...] = ()


def decide(config: ClusterConfig, hosts: Sequence[str]) -> Warmth:
    """Decide for the tasks of a run.

    Unless it was asked for or forbidden: on hosts with several tasks, for programs that import TensorFlow or Keras anyway,
    as far as their source and that of the modules beside them tells; and on hosts that are crowded, for all others.

    Args:
        hosts: the address of each task's host, by number.
    """
    if config.warm is False or isinstance(config.command, Program):
        return Warmth()
    count = Counter(hosts)
    chosen = frozenset(number for number, host in enumerate(hosts) if config.warm or count[host] > 1)
    if not chosen or (config.engine == "local" and not kernel.LINUX):
        return Warmth(notes=("warm start is for Linux: starting cold",) if config.warm else ())
    program = _imports(config)
    if config.warm is None and not program.tensorflow:
        crowded = {spec.address for spec in config.hosts if _pays(count[spec.address], _cores(spec))}
        spared = frozenset(number for number in chosen if hosts[number] in crowded)
        return Warmth(spared, Warm("")) if spared else Warmth()
    if config.warm is None and program.elsewhere:
        return Warmth(notes=(f"starting cold: importing TensorFlow depends on {program.elsewhere}",))
    given = {*config.env, *config.forward, *os.environ}
    defaults = {name: value for name, value in program.defaults.items() if name not in given}
    return Warmth(chosen, Warm(early={**defaults, **program.early}))


def _pays(workers: int, cores: float) -> bool:
    """Whether so many workers are there earlier if the interpreter is started once for all of them."""
    return workers * (_START / cores - _FORK) > _READY


def _cores(host: HostSpec) -> float:
    """How many its workers have; without end where that is not known yet."""
    match host.cores:
        case None:
            return len(os.sched_getaffinity(0)) if kernel.LINUX and host.is_this_machine else inf
        case int(count):
            return count
        case numbers:
            return len(numbers)


def _imports(config: ClusterConfig) -> Imports:
    folder = Path(config.cwd or "").resolve()
    match config.command:
        case Script(path):
            file = (folder / path).resolve()
            if file.is_dir():
                return imports.read(file / "__main__.py", file)
            return imports.read(file, file.parent)
        case Function(_, source):
            return imports.read(Path(source), Path(source).parent) if source else Imports()
        case Module(name) if not preflight.trains(config):
            file, root = _module_file(name, folder)
            return imports.read(file, root)
    return _TRAINER


def _module_file(name: str, folder: Path) -> tuple[Path, Path]:
    """The file that ``python -m name`` runs, and the folder that its top-level package is in."""
    from launcher.agent import probe

    path = folder.joinpath(*name.split("."))
    origin = probe.look([str(folder)], [name])["modules"][name]["origin"]
    if origin is not None:
        path = Path(origin)
        path = path.parent if path.stem == "__init__" else path
    depth = name.count(".")
    return (path / "__main__.py" if path.is_dir() else path), path.parents[depth]
