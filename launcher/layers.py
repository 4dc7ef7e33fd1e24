"""cluster.json and flags -> one frozen ClusterConfig, or every fault in them at once.

A source of settings is a ``Layer``: the file, then the command line. ``build`` checks each against the table in
``launcher.keys``, lays them on top of each other and says of every setting where it came from. All but ``read_file``
is pure.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher import keys, rules
from launcher.config import ClusterConfig, Function, HostSpec, Module, Program, Script, SlurmSpec, Trainer
from launcher.errors import ConfigError, Fault, RequestError
from launcher.json_text import read_object
from launcher.schema import Flaw, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from launcher.config import Command


class Layer(NamedTuple):
    """Settings from one source.

    Attributes:
        source: the file's name as it was given, or what to call the command line.
        values: by key, as in cluster.json; the command line also knows ``task``, a training of our own.
        origins: for the command line, key -> the flag that gave it; the key of a job is ``jobs.chief`` and so on.
    """

    source: str
    values: Mapping[str, object]
    origins: Mapping[str, str] = MappingProxyType({})

    def origin(self, *path: str | int) -> str:
        """The flag that gave the value at ``path``, or the source itself."""
        names = (".".join(map(str, path[:length])) for length in range(len(path), 0, -1))
        return next((self.origins[name] for name in names if name in self.origins), self.source)

    def fault(self, flaw: Flaw) -> Fault:
        """Say where the flaw is: at the flag, or at the JSON path in the file."""
        is_file = self.values and not self.origins
        if is_file:
            return Fault("".join(["$", *map(_step, flaw.path)]), flaw.message, flaw.hint)
        flag = self.origin(*flaw.path)
        return Fault("" if flag == self.source else flag, flaw.message, flaw.hint)


def read_file(path: Path) -> Layer:
    """Read a cluster.json; whether its values are right is for ``build`` to judge.

    Raises:
        RequestError: the file cannot be read, is not JSON, or holds no object.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file", "`tflaunch init` writes one to start from") from error
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 at byte {error.start + 1}", "save it as UTF-8") from error
    return Layer(str(path), read_object(str(path), text))


def _nothing(_: ClusterConfig) -> Iterable[Flaw]:
    return ()


def build(layer: Layer, *later: Layer, inspect: Callable[[ClusterConfig], Iterable[Flaw]] = _nothing) -> ClusterConfig:
    """Lay the layers on top of each other and make one configuration of them.

    Later layers win, key by key. ``env``, ``forward``, ``jobs`` and ``slurm`` are won name by name. A command replaces all of the
    command below it, arguments included. ``hosts`` are replaced whole; ``workers`` above ``hosts`` replace the hosts'
    own numbers, and hosts with numbers of their own replace the ``workers`` below them.

    Args:
        inspect: finds what is wrong with a configuration whose values are sound, such as a script that is not there.

    Raises:
        ConfigError: with every fault of every layer, each at its flag or its JSON path.
    """
    settings = _Settings()
    found: list[tuple[Layer, Flaw]] = []
    for each in (layer, *later):
        flaws = rules.check(each.values, flags=bool(each.origins))
        found += ((each, flaw) for flaw in flaws)
        settings.lay(each._replace(values=rules.sound(each.values, flaws)))
    found += _clashes(settings, broken={str(flaw.path[0]) for _, flaw in found})
    config = settings.config()
    if config is None:
        hint = "give script, module or command, or name one on the command line"
        if all(each.values.keys().isdisjoint(keys.COMMANDS) for each in (layer, *later)):
            found.append((layer, Flaw((), "nothing to run", hint)))
    else:
        broken = {flaw.path[0] for _, flaw in found}
        found += (settings.located(flaw) for flaw in inspect(config) if flaw.path[0] not in broken)
    if found or config is None:
        sources = dict.fromkeys(each.source for each, _ in found)
        raise ConfigError(" and ".join(sources), tuple(each.fault(flaw) for each, flaw in found))
    return config


class _Given(NamedTuple):
    value: Any
    layer: Layer


class _Settings:
    """Layers on top of each other, by path; what is in them is sound, and so of the types that the table says."""

    def __init__(self) -> None:
        self.given: dict[tuple[str | int, ...], _Given] = {}

    def lay(self, layer: Layer) -> None:
        """Put a layer on top of those that are there."""
        if not layer.values.keys().isdisjoint(keys.COMMANDS):
            self._forget(*((name,) for name in (*keys.COMMANDS, "args")))
        hosts: Any = layer.values.get("hosts", ())
        if any("workers" in host for host in hosts):
            self._forget(("workers",))
        if "workers" in layer.values and ("hosts",) in self.given:
            below = self.given["hosts",]
            bare = [{name: value for name, value in host.items() if name != "workers"} for host in below.value]
            self.given["hosts",] = below._replace(value=bare)
        for path, value in _flat(layer.values):
            if path[0] in ("env", "forward"):
                self._forget(("env", path[1]), ("forward", path[1]))
            self.given[path] = _Given(value, layer)

    def value(self, *path: str) -> Any:  # noqa: ANN401 - the type is in the table
        """What was given, or the default."""
        return self.given[path].value if path in self.given else _DEFAULTS.get(path)

    def named(self, head: str) -> dict[str, Any]:
        """What was given below a key whose values are won name by name."""
        return {str(path[1]): given.value for path, given in self.given.items() if path[0] == head}

    def hosts(self) -> tuple[HostSpec, ...]:
        return tuple(map(_host, self.value("hosts") or [{"address": "127.0.0.1"}]))

    def workers(self) -> int:
        return self.value("workers") or sum(host.workers or 1 for host in self.hosts())

    def located(self, flaw: Flaw) -> tuple[Layer, Flaw]:
        """The layer that gave what a flaw was found in, and the flaw with its path in that layer."""
        prefixes = (flaw.path[:length] for length in range(len(flaw.path), 0, -1))
        layer = next(self.given[path].layer for path in prefixes if path in self.given)
        match flaw.path:
            case "forward", str(name):
                names: Any = layer.values["forward"]
                return layer, flaw._replace(path=("forward", list(names).index(name)))
        return layer, flaw

    def config(self) -> ClusterConfig | None:
        """All settings together, defaults included; None when there is nothing to run."""
        command, hosts = self._command(), self.hosts()
        timeout, join, hang = (self.value(name) for name in ("timeout", "join_deadline", "hang_deadline"))
        sync = self.value("sync")
        if command is None:
            return None
        derived = {
            "command": command,
            "name": self.value("name") or _name(command),
            "engine": self.value("engine") or ("local" if all(host.is_this_machine for host in hosts) else "ssh"),
            "hosts": hosts,
            "workers": self.workers(),
            "env": self.named("env"),
            "forward": tuple(self.named("forward")),
            "ports": rules.port_range(self.value("ports")) if self.value("ports") else None,
            "grace": float(self.value("grace")),
            "timeout": None if timeout is None else float(timeout),
            "join_deadline": None if join is None else float(join),
            "hang_deadline": None if hang is None else float(hang),
            "lease": float(self.value("lease")),
            "backoff": float(self.value("backoff")),
            "forgive_after": float(self.value("forgive_after")),
            "never_restart": tuple(map(str, self.value("never_restart"))),
            "sync": {True: (), False: None}.get(sync) if isinstance(sync, bool) else tuple(sync),
            "fetch": tuple(self.value("fetch")),
            "always_restart": tuple(map(str, self.value("always_restart"))),
            "slurm": self._slurm(),
            "origins": self._origins(),
        }
        return ClusterConfig(**{name: self.value(*paths[0]) for name, paths in _PATHS.items()} | derived)

    def _slurm(self) -> SlurmSpec:
        given = self.named("slurm")
        return SlurmSpec(**{**given, "options": tuple(given.get("options", ()))})

    def _command(self) -> Command | None:
        args = tuple(self.value("args"))
        match {path[0]: given.value for path, given in self.given.items()}:
            case {"script": str(path)}:
                return Script(path, args)
            case {"module": str(name)}:
                return Module(name, args)
            case {"task": str(task)}:
                return Trainer(task, args)
            case {"function": str(payload)}:
                return Function(payload)
            case {"command": argv}:
                return Program(tuple(argv))
        return None

    def _origins(self) -> dict[str, str]:
        origins = {name: self._origin(*paths) for name, paths in _PATHS.items()}
        if ("workers",) not in self.given and any(host.workers for host in self.hosts()):
            origins["workers"] = origins["hosts"]
        return origins

    def _origin(self, *paths: tuple[str, ...]) -> str:
        given = ((path, each.layer) for path, each in self.given.items() if path in paths or path[:1] in paths)
        return ", ".join(dict.fromkeys(layer.origin(*path) for path, layer in given)) or "default"

    def _forget(self, *paths: tuple[str, ...]) -> None:
        for path in paths:
            self.given.pop(path, None)


_DEFAULTS = {tuple(name.split(".")): key.default for name, key in walk(keys.FILE)}
_PATHS: dict[str, tuple[tuple[str, ...], ...]] = {
    **{each.name: ((each.name,),) for each in fields(ClusterConfig) if each.name != "origins"},
    **{key.name: (("jobs", key.name),) for key in keys.JOBS.keys},
    "command": tuple((name,) for name in (*keys.COMMANDS, "args")),
}
"""Where the value of each attribute of ClusterConfig is given."""


def _clashes(settings: _Settings, broken: set[str]) -> Iterator[tuple[Layer, Flaw]]:
    """Yield where settings of different layers do not go together, as far as they are not broken by themselves."""
    given = {path[0]: each.layer for path, each in settings.given.items()}
    if {"args", "command"} <= given.keys():
        yield given["args"], Flaw(("args",), "cannot stand beside command", "append them to the command")
    if settings.value("warm") and {"command", "warm"} <= given.keys():
        yield (
            given["warm"],
            Flaw(("warm",), "is for Python scripts and modules: nothing can be imported for another program"),
        )
    if "ports" in given and not broken & {"ports", "hosts", "workers", "jobs"}:
        yield from ((given["ports"], flaw) for flaw in _ports_suffice(settings))
    if "engine" in given and settings.value("engine") == "local" and not broken & {"engine", "hosts"}:
        away = [host.address for host in settings.hosts() if not host.is_this_machine]
        if away:
            yield (
                given["engine"],
                Flaw(("engine",), f"local runs on this machine alone, but {away[0]} is a host of the run"),
            )
    if "min_workers" in given and not broken & {"min_workers", "max_restarts", "hosts", "workers"}:
        yield from ((given["min_workers"], flaw) for flaw in _few_enough(settings))
    if settings.value("private") and not broken & {"hosts"}:
        away = [host.address for host in settings.hosts() if not host.is_this_machine]
        if away:
            yield given["private"], Flaw(("private",), f"is for this machine alone, but {away[0]} is a host of the run")


def _ports_suffice(settings: _Settings) -> Iterator[Flaw]:
    first, last = rules.port_range(settings.value("ports"))
    hosts = settings.hosts()
    tasks = settings.workers() + settings.value("jobs", "chief") + settings.value("jobs", "ps")
    # However they are placed, one host gets at least its even share, rounded up.
    most = max(-(-tasks // len(hosts)), *(host.workers or 0 for host in hosts))
    if last - first + 1 < most:
        message = f"hold {last - first + 1} ports, but one host needs {most}, one for each of its tasks"
        yield Flaw(("ports",), message, "widen the range")


def _few_enough(settings: _Settings) -> Iterator[Flaw]:
    fewest, workers = settings.value("min_workers"), settings.workers()
    if fewest > workers:
        yield Flaw(
            ("min_workers",), f"is {fewest}, but there {'is' if workers == 1 else 'are'} only {workers} to begin with"
        )
    if not settings.value("max_restarts"):
        yield Flaw(("min_workers",), "is for restarts, and there are to be none", "allow some with --max-restarts")


def _flat(values: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in values.items():
        match name, value:
            case (("env" | "jobs" | "slurm"), dict() as named):
                yield from (((name, str(each)), inner) for each, inner in named.items())
            case "forward", (list() | tuple()) as names:
                yield from (((name, each), True) for each in names)
            case _:
                yield (name,), value


def _host(host: dict[str, Any]) -> HostSpec:
    cores, gpus = host.get("cores"), host.get("gpus")
    chosen = {
        "cores": cores if cores is None or isinstance(cores, int) else tuple(cores),
        "gpus": gpus if gpus is None or isinstance(gpus, int) else tuple(map(str, gpus)),
    }
    return HostSpec(**{**host, **chosen})


def _name(command: Command) -> str:
    match command:
        case Script(path):
            name = PurePath(path).stem
        case Module("worker", (task, *_)) if not task.startswith("-"):
            return _name(Trainer(task))
        case Module(module):
            name = module.rpartition(".")[2]
        case Program(argv):
            name = PurePath(argv[0]).name
        case Trainer(task):
            name = PurePath(task.partition(":")[0]).stem
        case Function(payload, _):
            name = PurePath(payload).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100] or "run"


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$]*", step) else f"[{json.dumps(step)}]"
