"""TF_CONFIG, the variable that tells a TensorFlow process its cluster and its place in it: build, parse, lint. Pure.

The only room that knows its shape. What TensorFlow makes of a value was tried with 2.21, and is told where it matters.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from launcher.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_Severity = Literal["error", "warning"]

JOBS = ("chief", "worker", "ps", "evaluator")

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]")
_OWN_NAMES = re.compile(r"localhost|127(\.\d+){3}|\[::1\]|0\.0\.0\.0|\[::\]")


def cluster(tasks: Iterable[tuple[str, int, str]]) -> dict[str, list[str]]:
    """The part of TF_CONFIG that all tasks share.

    Args:
        tasks: job, index and ``host:port`` of every task, in any order.

    Returns:
        Job to addresses in the order of their indices; chief, worker, ps, then other jobs by name. An evaluator is left
        out, as TensorFlow has it: a ParameterServerStrategy waits for ever for every task that is listed.
    """
    jobs: dict[str, list[str]] = {}
    for job, _, address in sorted(tasks, key=lambda task: (_rank(task[0]), task[1])):
        if job != "evaluator":
            jobs.setdefault(job, []).append(address)
    return jobs


def text_of(cluster: Mapping[str, Sequence[str]]) -> str:
    """The part of TF_CONFIG that all tasks share, as compact JSON."""
    return json.dumps(cluster, separators=(",", ":"))


def around(job: str, index: int) -> tuple[str, str]:
    """What the TF_CONFIG of one task has before its cluster and after it. An evaluator sees the cluster without being in it."""
    return '{"cluster":', f',"task":{{"type":"{job}","index":{index}}}}}'


@dataclass(frozen=True)
class Task:
    """Who a process is. ``quoted`` tells that its index was written as a string."""

    job: str
    index: int
    quoted: bool = False

    def __str__(self) -> str:
        return f"{self.job} {self.index}"


@dataclass(frozen=True)
class TfConfig:
    """A TF_CONFIG whose shape is right; whether its contents are is for ``lint`` to say.

    Attributes:
        cluster: job -> index -> address, by rising index. TensorFlow allows gaps.
        task: None when TF_CONFIG names none.
        other: all further keys, such as ``environment`` and ``rpc_layer``.
    """

    cluster: Mapping[str, Mapping[int, str]]
    task: Task | None
    other: Mapping[str, object]

    def address(self, job: str, index: int) -> str | None:
        """What peers dial to reach a task; None when the cluster does not list it."""
        return self.cluster.get(job, {}).get(index)


class Endpoint(NamedTuple):
    """An address, taken apart. ``host`` is in lower case; an IPv6 address keeps its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def own(self) -> bool:
        """Whether every machine means itself by this host."""
        return _OWN_NAMES.fullmatch(self.host) is not None


class Finding(NamedTuple):
    """One thing that is wrong, or looks wrong: where (a JSON path), what, and what to do about it."""

    path: str
    message: str
    hint: str
    severity: _Severity = "error"


def parse(text: str, source: str = "TF_CONFIG") -> TfConfig:
    """Read a TF_CONFIG; ``source`` is what errors call it.

    Raises:
        RequestError: it is not JSON (says line and column), or its shape is wrong (says the JSON path).
    """
    try:
        document = _object(_load(text), "$")
        jobs = _object(document.pop("cluster", {}), "$.cluster")
        task = _task(document.pop("task")) if "task" in document else None
        return TfConfig({job: _addresses(job, value) for job, value in jobs.items()}, task, document)
    except ValueError as error:
        raise RequestError(f"{source}: {error}") from None


def endpoint(address: str) -> Endpoint:
    """Take ``host:port`` apart.

    Raises:
        RequestError: it is no such thing; the hint says what would be.
    """
    host, colon, port = address.rpartition(":")
    if "://" in address:
        raise RequestError("an address has no scheme", f"write {address.split('://', 1)[1].split('/', 1)[0]}")
    if not colon or address.endswith("]"):
        raise RequestError("there is no port", f"write {address}:PORT")
    if ":" in host and not host.startswith("["):
        # TensorFlow takes it, and then waits for ever.
        raise RequestError("an IPv6 address stands in brackets", f"write [{host}]:{port}")
    if not _HOST.fullmatch(host):
        raise RequestError("there is no host" if not host else "this is no host name", "write HOST:PORT")
    if not re.fullmatch("[0-9]+", port):
        raise RequestError("the port is not a number", f"write {host}:PORT, with a number from 1 to 65535")
    # TensorFlow takes any: with 0 its peers wait for ever, and 99999, cut to 16 bits, is the port 34463.
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise RequestError("the port is out of range", "choose one from 1 to 65535")
    return Endpoint(host.lower(), int(port))


def lint(config: TfConfig, *, listening: frozenset[int] | None = None) -> tuple[Finding, ...]:
    """Everything that is wrong with a TF_CONFIG, or looks wrong.

    Args:
        listening: the TCP ports on which something listens on the machine of this very task; None when not known.
    """
    return (*_lint_jobs(config), *_lint_addresses(config), *_lint_task(config, listening), *_lint_other(config))


def _rank(job: str) -> tuple[int, str]:
    return JOBS.index(job) if job in JOBS else len(JOBS), job


def _load(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_twins)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError("not a TF_CONFIG: nested too deeply") from None


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        # JSON readers keep the last and say nothing.
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {json.dumps(next(name for name in names if names.count(name) > 1))} stands twice")
    return fields


def _object(value: object, path: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _misshapen(path, "an object", value)
    return value


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _misshapen(path, "a string", value)
    if not value.isprintable():
        raise ValueError(f"{path}: {json.dumps(value)} holds a character that cannot be printed")
    return value


def _addresses(job: str, value: object) -> dict[int, str]:
    path = f"$.cluster.{_text(job, '$.cluster')}"
    match value:
        case list():
            entries: Iterable[tuple[int, object]] = enumerate(value)
        case dict() if all(re.fullmatch("[0-9]{1,9}", key) for key in value):
            entries = sorted((int(key), address) for key, address in value.items())
        case _:
            raise _misshapen(path, 'a list of "host:port"', value)
    return {index: _text(address, f"{path}[{index}]") for index, address in entries}


def _task(value: object) -> Task:
    fields = _object(value, "$.task")
    for name in ("type", "index"):
        if name not in fields:
            raise ValueError(f'$.task: there is no "{name}"')
    job = _text(fields["type"], "$.task.type")
    match fields["index"]:
        case bool():
            pass
        case int(index):
            return Task(job, index)
        case str(index) if re.fullmatch("-?[0-9]{1,9}", index):
            return Task(job, int(index), quoted=True)
    raise _misshapen("$.task.index", "a whole number", fields["index"])


def _misshapen(path: str, wanted: str, value: object) -> ValueError:
    match value:
        case dict():
            found = "an object"
        case list():
            found = "a list"
        case _:
            found = json.dumps(value)
    return ValueError(f"{path}: must be {wanted}, not {found}")


def _lint_jobs(config: TfConfig) -> Iterator[Finding]:
    if not any(config.cluster.values()):
        yield Finding("$.cluster", "there is no cluster: every process would train alone", _meant(config, "cluster"))
        return
    for job, addresses in config.cluster.items():
        path = f"$.cluster.{job}"
        if job not in JOBS:
            yield Finding(path, f"TensorFlow knows no job {json.dumps(job)}", _nearest(job))
        elif not addresses:
            # Where ps or chief is empty, all other tasks wait for ever for the one that would lead.
            severity: _Severity = "error" if job in {"chief", "ps"} else "warning"
            yield Finding(path, "the job lists no address", "leave the job out", severity)
        elif len(addresses) <= max(addresses):
            message = "indices are left out, as only ParameterServerStrategy can bear"
            yield Finding(path, message, "list every task", "warning")
    if all(job in JOBS for job in config.cluster):
        yield from _lint_roles({job: len(addresses) for job, addresses in config.cluster.items() if addresses})


def _lint_roles(count: Mapping[str, int]) -> Iterator[Finding]:
    # ParameterServerStrategy needs a worker, and waits for whatever is listed; for a collective the chief is a worker,
    # and an evaluator beside it is passed over.
    severity: _Severity = "error" if "ps" in count else "warning"
    if count.get("chief", 0) > 1:
        message = f"a cluster has one chief, not {count['chief']}"
        yield Finding("$.cluster.chief", message, "make the others workers")
    if "chief" in count and "worker" not in count:
        hint = "list the workers, unless the chief is to train alone"
        yield Finding("$.cluster", "there is a chief and no worker", hint, severity)
    if "ps" in count and "chief" not in count:
        hint = "list the chief, unless the coordinator runs outside the cluster"
        yield Finding("$.cluster", "there are parameter servers and no chief to coordinate them", hint, "warning")
    if "evaluator" in count:
        message = "an evaluator is no part of the cluster: nobody dials it"
        yield Finding("$.cluster.evaluator", message, "leave it out: its task type is enough", severity)


def _lint_addresses(config: TfConfig) -> Iterator[Finding]:
    places: dict[str, Endpoint] = {}
    for job, addresses in config.cluster.items():
        for index, address in addresses.items():
            path = f"$.cluster.{job}[{index}]"
            try:
                places[path] = endpoint(address)
            except RequestError as error:
                yield Finding(path, f"{json.dumps(address)}: {error.args[0]}", error.hint)
    yield from _lint_twins(places)
    if all(place.own for place in places.values()):
        return
    for path, place in places.items():
        if place.own:
            message = f"every machine means itself by {place.host}, and this cluster has several"
            yield Finding(path, message, "write the address that the other machines dial")


def _lint_twins(places: Mapping[str, Endpoint]) -> Iterator[Finding]:
    seen: dict[tuple[str, int], str] = {}
    for path, place in places.items():
        first = seen.setdefault(("localhost" if place.own else place.host, place.port), path)
        if first != path:
            yield Finding(path, f"{place} is the address of {first} too", "give each task a port of its own")


def _lint_task(config: TfConfig, listening: frozenset[int] | None) -> Iterator[Finding]:
    task = config.task
    if task is None:
        yield Finding("$.task", "it does not say which task this process is", _meant(config, "task"))
        return
    if task.quoted:
        message = f'the index is the string "{task.index}": TensorFlow takes it, other programs do not'
        yield Finding("$.task.index", message, f"write {task.index}", "warning")
    listed = config.cluster.get(task.job, {})
    if task.job not in JOBS:
        yield Finding("$.task.type", f"TensorFlow knows no task type {json.dumps(task.job)}", _nearest(task.job))
    elif task.index in listed:
        yield from _lint_port(task, listed[task.index], listening)
    elif listed:
        named = ", ".join(f"{task.job} {index}" for index in list(listed)[:4]) + (" ..." if len(listed) > 4 else "")
        yield Finding("$.task.index", f"there is no {task}", f"the cluster lists {named}")
    elif task.job != "evaluator":
        jobs = ", ".join(job for job in config.cluster if config.cluster[job])
        yield Finding("$.task.type", f"the cluster has no {task.job}", f"it lists {jobs or 'no job at all'}")
    elif task.index:
        yield Finding("$.task.index", "TensorFlow knows one evaluator", "write 0", "warning")


def _lint_port(task: Task, address: str, listening: frozenset[int] | None) -> Iterator[Finding]:
    with suppress(RequestError):
        port = endpoint(address).port
        if listening is not None and port not in listening:
            message = f"nothing listens on port {port} of this machine, which is as it should be until {task} starts"
            yield Finding("$.task", message, "if it runs already, it was told another port", "warning")


def _lint_other(config: TfConfig) -> Iterator[Finding]:
    layer = config.other.get("rpc_layer")
    if layer not in (None, "grpc"):
        message = f"TensorFlow as it is published speaks grpc, not {json.dumps(layer)}"
        yield Finding("$.rpc_layer", message, "leave it out")


def _nearest(job: str) -> str:
    from difflib import get_close_matches

    if job.lower() == "master":
        return "master is the old name of chief"
    near = get_close_matches(job.lower(), JOBS, 1)
    return f"did you mean {near[0]}?" if near else f"it knows {', '.join(JOBS)}"


def _meant(config: TfConfig, key: str) -> str:
    from difflib import get_close_matches

    examples = {"cluster": '{"worker": ["HOST:PORT", "HOST:PORT"]}', "task": '{"type": "worker", "index": 0}'}
    near = get_close_matches(key, config.other, 1)
    return f'is "{near[0]}" meant to be "{key}"?' if near else f'add "{key}": {examples[key]}'
