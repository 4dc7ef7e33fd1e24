"""Named checks of a request, made before anything is started. Each finding says where it is, and what to do instead."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import engines
from launcher.agent import probe
from launcher.config import Module, Program, Script, Trainer
from launcher.errors import RequestError, UnavailableError
from launcher.layers import Layer, build
from launcher.schema import Flaw, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from launcher.agent.probe import Answer
    from launcher.config import ClusterConfig
    from launcher.tree import Tree

_OUR_TRAINER = Path(__file__).resolve().parent.parent / "worker" / "__init__.py"
_OURS = _OUR_TRAINER.parent.name
_TENSORFLOW = "tensorflow"
_OLDEST = (3, 11)
# An interpreter on a slow shared disk takes its time; one that takes longer is left to say itself what it cannot do.
_PATIENCE = 20.0


def checked(*layers: Layer) -> ClusterConfig:
    """One configuration of the layers, which can be carried out as far as that can be known from here.

    Raises:
        ConfigError: with all that is wrong, whether a value is wrong by itself or names what is not there.
    """
    if engine_of(*layers) == "slurm":
        layers = (nodes(os.environ), *layers)
    return build(*layers, inspect=findings)


def engine_of(*layers: Layer) -> object:
    """The engine that is named, by whoever says it last; None where nobody does."""
    named = [layer.values["engine"] for layer in layers if "engine" in layer.values]
    return named[-1] if named else None


def submittable(*layers: Layer) -> ClusterConfig:
    """One configuration of the layers, which Slurm can be asked for.

    Raises:
        ConfigError: with all that is wrong.
    """
    from launcher.slurm import contradictions

    return build(*layers, inspect=lambda config: (*contradictions.found(config), *findings(config)))


def nodes(environment: Mapping[str, str]) -> Layer:
    """The hosts, and how many workers on each, as the allocation that we are in has them.

    Raises:
        UnavailableError: there is no allocation, or Slurm does not answer.
    """
    from launcher.slurm import allocation, controller

    found = allocation.read(environment)
    if found is None:
        raise UnavailableError(
            'engine "slurm": not in an allocation', "get one with salloc, or leave that to tflaunch submit"
        )
    where = controller.addresses(found.tasks)
    hosts = [{"address": where.get(node, node), "node": node, "workers": count} for node, count in found.tasks.items()]
    return Layer(f"Slurm job {found.job}", {"hosts": hosts})


def findings(config: ClusterConfig) -> Iterator[Flaw]:
    """Yield what a configuration names that is not there; about other hosts, only what can be seen from here."""
    yield from _engine(config)
    yield from _nodes(config)
    if not all(host.is_this_machine for host in config.hosts):
        return
    yield from _ports(config)
    yield from _forward(config)
    if config.cwd is not None and not Path(config.cwd).is_dir():
        # All else is looked for from there.
        yield Flaw(("cwd",), f"no such working directory: {config.cwd}")
        return
    answer = _ask(config)
    yield from _python(config, answer)
    yield from _command(config, answer)
    yield from _devices(config)


def require(config: ClusterConfig) -> None:
    """Check that what a run on this machine needs is installed.

    Raises:
        UnavailableError: it is not.
    """
    answer = _ask(config) if _TENSORFLOW in _wanted(config) else None
    if answer and answer["modules"][_TENSORFLOW]["missing"] and _trains(config, answer):
        raise UnavailableError(
            f"TensorFlow is not installed for {interpreter(config)}",
            "install it with: pip install 'tflaunch[tensorflow]'  (or name an interpreter that has it: --python)",
        )


def trains(config: ClusterConfig) -> bool:
    """Whether it is our own trainer that is asked for, as ``train TASK`` or as ``-m worker``."""
    if isinstance(config.command, Module) and config.command.name != _OURS:
        return False
    answer = _ask(config)
    return answer is not None and _trains(config, answer)


def is_ours(module: str) -> bool:
    """Whether a module has the name of our trainer, which a program has unless it has one of its own."""
    return module == _OURS


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
        RequestError: one of them is not set any more.
    """
    missing = [name for name in config.forward if name not in environment]
    if missing:
        raise RequestError(f"to be forwarded, but not set here: {', '.join(missing)}", _SET_IT)
    return {name: environment[name] for name in config.forward}


_SET_IT = "set it, or give a value: --env NAME=VALUE"


def _engine(config: ClusterConfig) -> Iterator[Flaw]:
    if not engines.exists(config.engine):
        known = engines.names()
        hint = nearest(config.engine, known) or f"known: {', '.join(known)}"
        yield Flaw(("engine",), f'there is no engine "{config.engine}" here', hint)


def _nodes(config: ClusterConfig) -> Iterator[Flaw]:
    """More than the allocation has that we are in."""
    there = sum(host.node is not None for host in config.hosts)
    if there and config.slurm.nodes is not None and config.slurm.nodes > there:
        hint = "ask for as many: salloc -N, or tflaunch submit"
        yield Flaw(("slurm", "nodes"), f"are {config.slurm.nodes}, but the allocation has {there}", hint)


def _ports(config: ClusterConfig) -> Iterator[Flaw]:
    if config.ports is None or config.ports[0] >= 1024 or os.geteuid() == 0:
        return
    # ip(7): where a system lets everybody bind lower ports, it says so here.
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        first = 1024
    if config.ports[0] < first:
        low, high = config.ports
        yield Flaw(("ports",), f"ports below {first} need a privilege you do not have: {low}-{high}")


def _python(config: ClusterConfig, answer: Answer | None) -> Iterator[Flaw]:
    if config.python is None:
        return
    if _which(interpreter(config), config) is None:
        yield Flaw(("python",), f"no such Python interpreter: {config.python}")
    elif answer and tuple(answer["version"]) < _OLDEST:
        found, least = (".".join(map(str, version)) for version in (answer["version"], _OLDEST))
        yield Flaw(("python",), f"workers need Python {least} or later, not {found}: {config.python}")


def _forward(config: ClusterConfig) -> Iterator[Flaw]:
    for name in config.forward:
        if name not in os.environ:
            yield Flaw(("forward", name), f"to be forwarded, but not set here: {name}", _SET_IT)


def _devices(config: ClusterConfig) -> Iterator[Flaw]:
    """GPUs and cores that are not there."""
    asked = any(host.gpus is not None or host.cores is not None for host in config.hosts)
    if not engines.exists(config.engine) or not (asked or config.gpus_per_task is not None):
        return
    from launcher import placement

    engine = engines.load(config.engine)
    try:
        placement.place(config, [placement.found(host, engine.peek(host)) for host in config.hosts])
    except RequestError as error:
        yield Flaw(("hosts" if config.gpus_per_task is None else "gpus_per_task",), error.args[0], error.hint)


def _command(config: ClusterConfig, answer: Answer | None) -> Iterator[Flaw]:
    match config.command:
        case Script(path):
            yield from _script(config, path)
        case Module(name) if answer:
            yield from _module(config, name, answer)
        case Program(argv):
            yield from _program(config, argv[0])
        case Trainer(task):
            yield from _training(config, task)


def _training(config: ClusterConfig, task: str) -> Iterator[Flaw]:
    file, colon, _ = task.rpartition(":")
    if colon:
        if not (Path(config.cwd or "") / file).is_file():
            yield Flaw(("task",), f"no such file: {file}")
        return
    names = sorted(path.stem for path in _OUR_TRAINER.with_name("tasks").glob("[a-z]*.py"))
    if task not in names:
        others = f"there is {', '.join(names)}, or a task of your own as FILE.py:NAME"
        yield Flaw(("task",), f"no training is called {task}", nearest(task, names) or others)


def _script(config: ClusterConfig, given: str) -> Iterator[Flaw]:
    path = Path(config.cwd or "") / given
    if not path.exists():
        is_program = "/" not in given and _which(given, config)
        hint = f"to run a program, put -- before it: tflaunch run -n 2 -- {given}" if is_program else ""
        yield Flaw(("script",), f"no such script: {given}", hint)
    elif path.is_dir() and not (path / "__main__.py").exists():
        yield Flaw(("script",), f"a directory without a __main__.py is no script: {given}")
    elif not os.access(path, os.R_OK):
        yield Flaw(("script",), f"not readable: {given}")


def _module(config: ClusterConfig, name: str, answer: Answer) -> Iterator[Flaw]:
    found = answer["modules"][name]
    # Where a program has no module of our trainer's name, its boot file finds ours (worker/boot.py).
    if found["missing"] and name != _OURS:
        where = f"looked in {folder(config)} and where {interpreter(config)} looks"
        yield Flaw(("module",), f"no module named {found['missing']}", where)
    elif not found["missing"] and not found["runs"]:
        yield Flaw(("module",), f"{name} is a package and cannot be run: it has no __main__.py")


def _program(config: ClusterConfig, program: str) -> Iterator[Flaw]:
    if "/" in program:
        path = Path(config.cwd or "") / program
        if not path.exists():
            yield Flaw(("command",), f"no such program: {program}")
        elif path.is_dir() or not os.access(path, os.X_OK):
            yield Flaw(("command",), f"not executable: {program}", f"chmod +x {program}, or name its interpreter")
    elif _which(program, config) is None:
        yield Flaw(("command",), f"no such program on PATH: {program}")


def _which(program: str, config: ClusterConfig) -> str | None:
    # As the worker will search: on the PATH that it gets, relative to the directory it starts in.
    from shutil import which

    if "/" in program:
        program = os.path.join(config.cwd or "", program)  # noqa: PTH118 - Path would drop a leading ./
    return which(program, path=config.env.get("PATH", os.environ.get("PATH")))


def _trains(config: ClusterConfig, answer: Answer) -> bool:
    """Whether it is our trainer that runs, and not a module of the user's that happens to have its name."""
    if isinstance(config.command, Trainer):
        return True
    found = answer["modules"][_OURS]
    return bool(found["missing"]) or found["origin"] == str(_OUR_TRAINER)


def _wanted(config: ClusterConfig) -> tuple[str, ...]:
    """The modules that the workers' interpreter is asked for."""
    match config.command:
        case Trainer():
            return (_TENSORFLOW,)
        case Module(name) if name == _OURS:
            return (name, _TENSORFLOW)
        case Module(name):
            return (name,)
    return ()


def _ask(config: ClusterConfig) -> Answer | None:
    """What the workers' interpreter finds; None when it cannot be asked."""
    base = folder(config)
    added = config.env.get("PYTHONPATH", "").split(":")
    folders = [base, *(os.path.join(base, entry) for entry in added if entry)]  # noqa: PTH118
    if config.python is None:
        return probe.look(folders, _wanted(config))
    python = _which(interpreter(config), config)
    return None if python is None else _ask_other(python, tuple(folders), _wanted(config))


def _ask_other(python: str, folders: tuple[str, ...], names: tuple[str, ...]) -> Answer | None:
    import json
    import subprocess

    command = [python, probe.__file__, *folders, "--", *names]
    try:
        said = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE)
        answer: Answer = json.loads(said.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return answer


def tree(config: ClusterConfig, runs: Path) -> Tree | None:
    """The working tree that other hosts are to have; None where none are, or they have it. ``runs`` do not belong to it.

    Raises:
        RequestError: there is none.
    """
    if config.sync is None or all(host.is_this_machine for host in config.hosts):
        return None
    from launcher import tree

    return tree.read(folder(config), config.sync, [str(runs.absolute())])


def folder(config: ClusterConfig) -> str:
    """The directory that workers are to run in.

    Raises:
        RequestError: it is the current one, which does not exist any more.
    """
    try:
        return str(Path(config.cwd or "").absolute())
    except FileNotFoundError:
        raise RequestError("the current directory does not exist any more") from None
