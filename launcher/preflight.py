"""Named checks of a request, made before anything is started. Each raises the error that says what to do instead."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.config import Module, Program, Script, Trainer
from launcher.errors import RequestError, UnavailableError
from launcher.schema import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.machinery import ModuleSpec

    from launcher.config import ClusterConfig


def check(config: ClusterConfig) -> None:
    """Check what can be checked from here about a run on this machine.

    Raises:
        RequestError: the request cannot be carried out.
        UnavailableError: it could, but something that it needs is not installed.
    """
    _check_cwd(config)
    _check_ports(config)
    _check_python(config)
    _check_command(config)


def interpreter(config: ClusterConfig) -> str:
    """The Python that runs the workers: the one that was asked for, else the one that runs the launcher."""
    if config.python is None:
        return sys.executable
    # A path starts where tflaunch is run, the worker in its own directory. Not resolved further: that would lead out of a
    # virtual environment.
    return os.path.abspath(config.python) if "/" in config.python else config.python  # noqa: PTH100


def forwarded(config: ClusterConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """The values of the variables to forward.

    Raises:
        RequestError: one of them is not set.
    """
    missing = [name for name in config.forward if name not in environment]
    if missing:
        raise RequestError(
            f"to be forwarded, but not set here: {', '.join(missing)}", "set it, or give a value: --env NAME=VALUE"
        )
    return {name: environment[name] for name in config.forward}


def _check_cwd(config: ClusterConfig) -> None:
    if config.cwd is not None and not Path(config.cwd).is_dir():
        raise RequestError(f"no such working directory: {config.cwd}")


def _check_ports(config: ClusterConfig) -> None:
    if config.ports is None or config.ports[0] >= 1024 or os.geteuid() == 0:
        return
    # ip(7): where a system lets everybody bind lower ports, it says so here.
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        first = 1024
    if config.ports[0] < first:
        raise RequestError(f"ports below {first} need a privilege you do not have: {config.ports[0]}-{config.ports[1]}")


def _check_python(config: ClusterConfig) -> None:
    if config.python is not None and _which(interpreter(config), config) is None:
        raise RequestError(f"no such Python interpreter: {config.python}")


def _check_command(config: ClusterConfig) -> None:
    match config.command:
        case Script(path):
            _check_script(config, path)
        case Module(name) if config.python is None:
            _check_module(name, config)
        case Program(argv):
            _check_program(config, argv[0])
        case Trainer(task):
            _check_training(task)
            if config.python is None:
                _check_tensorflow()


def _check_training(task: str) -> None:
    names = sorted(path.stem for path in _OUR_TRAINER.with_name("tasks").glob("[a-z]*.py"))
    if task not in names:
        raise RequestError(f"no training is called {task}", nearest(task, names) or f"there is {', '.join(names)}")


def _check_script(config: ClusterConfig, given: str) -> None:
    path = Path(config.cwd or "") / given
    if not path.exists():
        is_program = "/" not in given and _which(given, config)
        hint = f"to run a program, put -- before it: tflaunch run -n 2 -- {given}" if is_program else ""
        raise RequestError(f"no such script: {given}", hint)
    if path.is_dir() and not (path / "__main__.py").exists():
        raise RequestError(f"a directory without a __main__.py is no script: {given}")
    if not os.access(path, os.R_OK):
        raise RequestError(f"not readable: {given}")


def _check_module(name: str, config: ClusterConfig) -> None:
    """Look for the module as ``python -m`` would, but without importing anything of the user's here."""
    try:
        folder = config.cwd or str(Path.cwd())
    except FileNotFoundError:
        raise RequestError("the current directory does not exist any more") from None
    added = [os.path.join(folder, entry) for entry in config.env.get("PYTHONPATH", "").split(":") if entry]  # noqa: PTH118
    path: list[str] | None = [folder, *added, *sys.path]
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        whole = ".".join(parts[:depth])
        spec = _spec(whole, path, top=depth == 1)
        if spec is None:
            raise RequestError(f"no module named {whole}", f"looked in {folder} and where {sys.executable} looks")
        path = list(spec.submodule_search_locations) if spec.submodule_search_locations else None
    if path is not None and PathFinder.find_spec(f"{name}.__main__", path) is None:
        raise RequestError(f"{name} is a package and cannot be run: it has no __main__.py")
    if spec is not None and spec.origin == str(_OUR_TRAINER):
        _check_tensorflow()


def _spec(name: str, path: list[str] | None, *, top: bool) -> ModuleSpec | None:
    spec = None if path is None else PathFinder.find_spec(name, path)
    if spec is not None or not top:
        return spec
    # Editable installs and built-in modules are found by finders of their own.
    found = (finder.find_spec(name, None) for finder in sys.meta_path)
    return next((one for one in found if one is not None), None)


_OUR_TRAINER = Path(__file__).resolve().parent.parent / "worker" / "__init__.py"


def _check_program(config: ClusterConfig, program: str) -> None:
    if "/" in program:
        path = Path(config.cwd or "") / program
        if not path.exists():
            raise RequestError(f"no such program: {program}")
        if path.is_dir() or not os.access(path, os.X_OK):
            raise RequestError(f"not executable: {program}", f"chmod +x {program}, or name its interpreter")
    elif _which(program, config) is None:
        raise RequestError(f"no such program on PATH: {program}")


def _which(program: str, config: ClusterConfig) -> str | None:
    # As the worker will search: on the PATH that it gets, relative to the directory it starts in.
    from shutil import which

    if "/" in program:
        program = os.path.join(config.cwd or "", program)  # noqa: PTH118 - Path would drop a leading ./
    return which(program, path=config.env.get("PATH", os.environ.get("PATH")))


def _check_tensorflow() -> None:
    if PathFinder.find_spec("tensorflow", sys.path) is None:
        raise UnavailableError(
            f"TensorFlow is not installed for {sys.executable}",
            "install it with: pip install 'tflaunch[tensorflow]'  (or name an interpreter that has it: --python)",
        )
