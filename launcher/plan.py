"""All that is about to be run, as a value that can show itself. ``tflaunch plan`` prints what ``run`` acts on. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher import environment, tf_config
from launcher.config import Function, Module, Program, Script, Trainer
from launcher.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from launcher.config import ClusterConfig, Command
    from launcher.environment import Setting
    from launcher.placement import Host, Task
    from launcher.warmth import Warm, Warmth

# The code that boots a Python worker travels as a file: nothing of ours needs to be importable where it runs.
CODE = str(Path(__file__).resolve().parent.parent)

# Stands in a plan for the port that a host will lease when the plan is run.
UNLEASED = "<leased>"
HIDDEN = "********"
_LONGEST_VARIABLE = 131_072

_SECRET = re.compile(
    r"(?i)secret|passw|passphrase|credential|cookie|pgpass|token$|(^|_)(key|token|auth|pat|dsn)(_|$)|(api|access|private)key"
)


class Launch(NamedTuple):
    """One task and the process that will be it.

    Attributes:
        cluster: what its TF_CONFIG shares with those of all others; each is as long as the cluster is large, so it is put
            together when somebody asks.
        settings: the other variables that are set on top of the environment of its host.
        why: for each of them, and TF_CONFIG, where it came from.
        warm: the process that it is forked from; None: it is not.
        address: where peers dial it, if that is not the address of its host.
    """

    task: Task
    argv: tuple[str, ...]
    cwd: str | None
    cluster: str
    settings: Mapping[str, str]
    why: Mapping[str, str]
    warm: Warm | None = None
    address: str | None = None

    @property
    def finds_tensorflow(self) -> bool:
        """It is forked from a process that has imported it."""
        return self.warm is not None and bool(self.warm.module)

    @property
    def tf_config(self) -> str:
        """Its TF_CONFIG."""
        return self.cluster.join(self.around_cluster)

    @property
    def around_cluster(self) -> tuple[str, str]:
        """What its TF_CONFIG has before ``cluster`` and after it: all that an agent has to be told for each task."""
        return tf_config.around(self.task.job, self.task.index)

    def shown_settings(self) -> dict[str, str]:
        """``settings`` as they may be printed and stored: secrets and forwarded values hidden."""
        return {name: HIDDEN if _hidden(name, self.why[name]) else value for name, value in self.settings.items()}


@dataclass(frozen=True)
class Plan:
    """The whole run.

    Attributes:
        launches: one for each task, in the order of their numbers.
        chief: number of the task that is chief: the chief job's, else worker 0.
        deciding: numbers of the tasks whose common success is the run's.
        notes: what the reader should know before the run starts.
        places: where peers may dial a task, as ``address:port``, and its number.
        attempt: 0 for the first, one more for each restart.
        unseen: variables that our own code takes away before a program sees them.
    """

    config: ClusterConfig
    launches: tuple[Launch, ...]
    chief: int
    deciding: frozenset[int]
    notes: tuple[str, ...]
    places: Mapping[str, int] = field(default_factory=dict)
    attempt: int = 0
    unseen: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, by number."""
        return tuple(launch.task for launch in self.launches)

    @property
    def summary(self) -> str:
        """One line: what runs, as how many of which, where."""
        counts = Counter(launch.task.job for launch in self.launches)
        what = ", ".join(f"{count} {job}{'s' if count > 1 and job != 'ps' else ''}" for job, count in counts.items())
        hosts = len({launch.task.host for launch in self.launches})
        where = "this machine" if self.config.engine == "local" else f"{hosts} host{'s' if hosts > 1 else ''}"
        return f"{self.config.name}: {what} on {where}"

    def as_json(self) -> dict[str, object]:
        """The plan for programs and for the run directory; holds no secret."""
        config = self.config
        return {
            "name": config.name,
            "engine": config.engine,
            "private": config.private,
            "grace": config.grace,
            "timeout": config.timeout,
            "max_restarts": config.max_restarts,
            "min_workers": config.min_workers,
            "attempt": self.attempt,
            "ports": "any free port" if config.ports is None else f"{config.ports[0]}-{config.ports[1]}",
            "origins": dict(config.origins),
            "notes": list(self.notes),
            "cluster": json.loads(self.launches[0].cluster),
            "tasks": [_launch_as_json(launch) for launch in self.launches],
        }


def make(
    config: ClusterConfig,
    tasks: Sequence[Task],
    hosts: Sequence[Host],
    interpreter: str,
    forwarded: Mapping[str, str],
    *,
    run: str,
    ports: Mapping[int, int] | None = None,
    warmth: Warmth | None = None,
    addresses: Mapping[int, str] | None = None,
    attempt: int = 0,
    before: int = 0,
    notes: Sequence[str] = (),
) -> Plan:
    """Put the plan together.

    Args:
        interpreter: the Python that runs scripts and modules on this machine.
        forwarded: the values of ``config.forward``.
        run: the name of this run, as its workers are told it.
        ports: the leased port of each task that has one; None when nothing was leased.
        warmth: which tasks are started warm; None for none.
        addresses: the address of each task that has one of its own.
        attempt: how many attempts this launcher has made before.
        before: how many others have.
        notes: what else the reader should know.
    """
    at = {host.address: host for host in hosts}
    own = {task.number: where for task in tasks if (where := at[task.host].dialled_at)} | dict(addresses or {})
    shared = tf_config.text_of(tf_config.cluster(_cluster(tasks, own, ports)))
    settings = _settings(config, tasks, at, environment.asked_for(config, forwarded), run, before + attempt)
    launches = tuple(
        Launch(
            task,
            command_line(config.command, at[task.host].python or interpreter, at[task.host].code or CODE),
            at[task.host].folder or config.cwd,
            shared,
            {name: value for name, value, _ in given},
            {"TF_CONFIG": "tflaunch", **{name: why for name, _, why in given}},
            warmth.warm if warmth is not None and task.number in warmth.tasks else None,
            own.get(task.number),
        )
        for task, given in zip(tasks, settings, strict=True)
    )
    return Plan(
        config,
        launches,
        next(task.number for task in tasks if task.job in {"chief", "worker"}),
        deciding(tasks),
        (*notes, *_notes(config, tasks, hosts), *(warmth.notes if warmth else ())),
        _places(tasks, hosts, ports or {}, own),
        attempt,
    )


def _settings(
    config: ClusterConfig,
    tasks: Sequence[Task],
    at: Mapping[str, Host],
    asked_for: Sequence[Setting],
    run: str,
    attempt: int,
) -> Iterator[list[Setting]]:
    """What each task is given on top of its host's environment."""
    one_core_each = {task.host for task in tasks} - {task.host for task in tasks if len(task.cores) != 1}
    for task in tasks:
        told = environment.names(config, task, run, attempt)
        yield environment.settings(told, task, at[task.host].decided, asked_for, one_core=task.host in one_core_each)


def _cluster(
    tasks: Sequence[Task], own: Mapping[int, str], ports: Mapping[int, int] | None
) -> Iterator[tuple[str, int, str]]:
    """Job, index and address of each task that is dialled."""
    for task in tasks:
        if task.is_dialled:
            port = UNLEASED if ports is None else ports[task.number]
            yield task.job, task.index, f"{bracketed(own.get(task.number, task.host))}:{port}"


def require_passable(whole: Plan) -> None:
    """Check that every task can be told of the cluster.

    Raises:
        RequestError: it is too large for that: Linux takes no variable of more than 128 KiB (execve(2), MAX_ARG_STRLEN).
    """
    size = len(f"TF_CONFIG={whole.launches[-1].tf_config}") + 1
    if size > _LONGEST_VARIABLE:
        said = f"TF_CONFIG for {len(whole.launches):,} tasks has {size:,} bytes, and Linux takes {_LONGEST_VARIABLE:,}"
        raise RequestError(said, "run fewer workers, with more GPUs each, or give hosts shorter names")


def _places(
    tasks: Sequence[Task], hosts: Sequence[Host], ports: Mapping[int, int], own: Mapping[int, str]
) -> dict[str, int]:
    # A host that is named by its name is dialled at one of its addresses.
    known = {host.address: (host.address, *host.exposed) for host in hosts}
    return {
        f"{bracketed(address)}:{ports[task.number]}": task.number
        for task in tasks
        if task.number in ports
        for address in ([own[task.number]] if task.number in own else known[task.host])
    }


def deciding(tasks: Sequence[Task]) -> frozenset[int]:
    """The tasks whose success ends the run.

    Under ParameterServerStrategy the chief coordinates, and workers and parameter servers serve until they are stopped.
    Everywhere else it takes the chief and all workers.
    """
    jobs = {task.job for task in tasks}
    wanted = {"chief"} if {"chief", "ps"} <= jobs else {"chief", "worker"}
    return frozenset(task.number for task in tasks if task.job in wanted)


def command_line(command: Command, interpreter: str, code: str = CODE) -> tuple[str, ...]:
    """The argument vector of a task. Python workers start in our boot file, which then becomes theirs."""
    boot = f"{code}/worker/start.py"
    match command:
        case Script(path, args):
            return (interpreter, boot, path, *args)
        case Module(name, args):
            return (interpreter, boot, "-m", name, *args)
        case Trainer(task, args):
            return (interpreter, boot, "--trainer", task, *args)
        case Function(payload, _):
            return (interpreter, boot, "--call", payload)
        case Program(argv):
            return argv


def bracketed(address: str) -> str:
    """An IPv6 address needs brackets before a port can follow it."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _notes(config: ClusterConfig, tasks: Sequence[Task], hosts: Sequence[Host]) -> list[str]:
    notes = []
    if not config.private and (exposed := sorted({address for host in hosts for address in host.exposed})):
        said = f"TensorFlow's servers listen on {', '.join(exposed)} too, and ask for no password"
        alone = all(host.is_this_machine for host in config.hosts)
        notes.append(f"{said}; --private keeps them in" if alone else said)
    if config.min_workers is not None and len(hosts) == 1 and len(config.hosts) == 1:
        notes.append("--min-workers changes nothing: there is no other host to go on with")
    busy = Counter(task.host for task in tasks if task.job != "ps")
    for host in hosts:
        computing = busy[host.address]
        there = len(host.gpus or ())
        if config.gpus_per_task is None and 0 < there < computing:
            notes.append(
                f"{host.address}: {computing} tasks cannot share {there} GPU{'s' if there > 1 else ''}, so none uses any"
            )
    return notes


def _hidden(name: str, why: str) -> bool:
    return why == "forwarded" or _is_secret(name)


@cache
def _is_secret(name: str) -> bool:
    """Each task has the same names."""
    return _SECRET.search(name) is not None


def _launch_as_json(launch: Launch) -> dict[str, object]:
    task = launch.task
    return {
        "task": task.label,
        "job": task.job,
        "index": task.index,
        "host": task.host,
        "cores": list(task.cores),
        "gpus": None if task.gpus is None else list(task.gpus),
        "argv": list(launch.argv),
        "cwd": launch.cwd,
        "warm": launch.finds_tensorflow,
        "env": launch.shown_settings(),
        "why": dict(launch.why),
    }
