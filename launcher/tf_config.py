"""TF_CONFIG, the variable that tells a TensorFlow process its cluster and its place in it: build, parse, describe, lint.

The only room that knows its shape. Pure. What TensorFlow makes of a value was tried with 2.21 and is told where it is
acted on.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from launcher.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_ORDER = ("chief", "worker", "ps")
JOBS = (*_ORDER, "evaluator")

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]")
_OWN_NAMES = re.compile(r"(?i)localhost|127(\.\d+){3}|\[::1\]|0\.0\.0\.0|\[::\]")


def cluster(tasks: Iterable[tuple[str, int, str]]) -> dict[str, list[str]]:
    """The part of TF_CONFIG that all tasks share.

    Args:
        tasks: job, index and ``host:port`` of every task, in any order.

    Returns:
        Job to addresses in the order of their indices; chief, worker, ps, then other jobs by name. An evaluator is left
        out: ParameterServerStrategy would wait for ever for a server that no evaluator runs.
    """
    jobs: dict[str, list[str]] = {}
    for job, _, address in sorted(tasks, key=lambda task: (_rank(task[0]), task[1])):
        if job != "evaluator":
            jobs.setdefault(job, []).append(address)
    return jobs


def render(cluster: Mapping[str, Sequence[str]], job: str, index: int) -> str:
    """TF_CONFIG of one task, as compact JSON. An evaluator sees the cluster without being in it."""
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}}, separators=(",", ":"))


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
    """A TF_CONFIG whose shape is right; its contents need not be.

    Attributes:
        cluster: job -> index -> address. Indices may have gaps, which TensorFlow allows.
        task: None when TF_CONFIG does not say.
        other: all further keys, such as ``environment`` and ``rpc_layer``.
    """

    cluster: Mapping[str, Mapping[int, str]]
    task: Task | None
    other: Mapping[str, object]

    @property
    def chief(self) -> Task | None:
        """The task that saves and leads: the chief, or worker 0 where no job is called so (TensorFlow's own rule)."""
        lead = Task("chief" if "chief" in self.cluster else "worker", 0)
        return lead if self.address(lead) else None

    @property
    def members(self) -> tuple[Task, ...]:
        """The tasks that train: the chief, then the workers."""
        return tuple(Task(job, index) for job in _ORDER[:2] for index in sorted(self.cluster.get(job, ())))

    def address(self, task: Task) -> str | None:
        """What peers dial to reach ``task``; None when the cluster does not list it."""
        return self.cluster.get(task.job, {}).get(task.index)


class Endpoint(NamedTuple):
    """An address, taken apart. An IPv6 ``host`` keeps its brackets."""

    host: str
    port: int

    @property
    def own(self) -> bool:
        """Whether the name means, on every machine, that machine itself."""
        return _OWN_NAMES.fullmatch(self.host) is not None


class Finding(NamedTuple):
    """One thing that is wrong, or looks wrong: where (a JSON path), what, and what to do about it."""

    severity: Literal["error", "warning"]
    path: str
    message: str
    hint: str


def endpoint(address: str) -> Endpoint:
    """Take ``host:port`` apart.

    Raises:
        RequestError: it is no such thing; the hint says how it would be.
    """
    if "://" in address:
        bare = address.split("://", 1)[1].split("/", 1)[0]
        raise RequestError("a scheme has no place in an address", f'write "{bare}"')
    host, colon, port = address.rpartition(":")
    if ":" in host and not host.startswith("["):
        # TensorFlow takes it, and then waits for ever, deaf to SIGTERM.
        raise RequestError("an IPv6 address stands in brackets", f'write "[{host}]:{port}"')
    if not colon or address.endswith("]"):
        raise RequestError("there is no port", f'write "{address}:PORT"')
    if not _HOST.fullmatch(host):
        raise RequestError("there is no host" if not host else "this is no host name", 'write "host:port"')
    if not (port.isascii() and port.isdigit()):
        raise RequestError("the port is not a number", f'write "{host}:PORT", with PORT from 1 to 65535')
    # TensorFlow takes any number, and then its peers wait for ever: 0 lets the kernel choose, 99999 is cut to 16 bits.
    if len(port) > 9 or not 1 <= int(port) <= 65535:
        raise RequestError("the port is out of range", "choose one from 1 to 65535")
    return Endpoint(host.lower(), int(port))


def _rank(job: str) -> tuple[int, str]:
    return (_ORDER.index(job), "") if job in _ORDER else (len(_ORDER), job)
