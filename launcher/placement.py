"""Hosts to tasks: which job and index runs where, on which cores, with which GPUs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from launcher.errors import RequestError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.config import ClusterConfig, HostSpec

_T = TypeVar("_T")

# Stands in a plan for the folder that a host will keep our code in.
_UNKNOWN = "<agent>"

# The jobs in the order in which tasks are numbered and shown.
JOBS = ("chief", "worker", "ps", "evaluator")


class Host(NamedTuple):
    """A host as it was found: what it offers to its tasks.

    Attributes:
        address: what peers dial.
        cores: ids of the CPUs to hand out; empty when they are not known yet.
        gpus: ids of the GPUs to hand out, as CUDA_VISIBLE_DEVICES takes them; None: it has none, and none were asked for.
        decided: variables its owner has set already, which are left alone.
        exposed: addresses at which others can reach it, and the TensorFlow servers on it.
        known: whether the host was asked; a plan for a host that was not says less.
        python: the interpreter of its workers; empty for the launcher's choice, on this machine.
        code: the folder that holds ours there; empty for the launcher's own.
        folder: where its workers run; empty for what was asked for.
        dialled_at: where peers dial it; empty for its address.
    """

    address: str
    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] | None = None
    decided: frozenset[str] = frozenset()
    exposed: tuple[str, ...] = ()
    known: bool = True
    python: str = ""
    code: str = ""
    folder: str = ""
    dialled_at: str = ""


@dataclass(frozen=True)
class Task:
    """One process of the cluster and its share of a host.

    Attributes:
        number: its place in the plan, from 0; what the wire calls it.
        host: the address of its host.
        cores: CPUs to run on; empty leaves it to the system.
        gpus: GPUs to see; None leaves it to the system.
    """

    number: int
    job: str
    index: int
    host: str
    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        """As people say it: ``worker 1``."""
        return f"{self.job} {self.index}"

    @property
    def is_dialled(self) -> bool:
        """Whether peers dial it, so that it needs a port: all but an evaluator, which the cluster does not list."""
        return self.job != "evaluator"

    @property
    def slug(self) -> str:
        """As a file is called: ``worker-1``."""
        return f"{self.job}-{self.index}"


def found(
    spec: HostSpec, facts: Mapping[str, Any] | None, python: str | None = None, subnet: str | None = None
) -> Host:
    """What ``spec`` asks of a host, held against what the host says it has (None: it was not asked).

    Args:
        python: the interpreter for hosts that name none.
        subnet: the network whose addresses peers dial.

    Raises:
        RequestError: cores or GPUs were asked for that are not there.
        UnavailableError: it is not in that network.
    """
    if facts is None:
        gpus = None if spec.gpus is None else tuple(map(str, _assumed(spec.gpus)))
        ours = ("", "") if spec.is_this_machine else (spec.python or python or "python3", _UNKNOWN)
        return Host(spec.address, _assumed(spec.cores), gpus, known=False, python=ours[0], code=ours[1])
    cores = _chosen(spec, "cores", spec.cores, tuple(facts["cores"]))
    gpus = _chosen(spec, "GPUs", spec.gpus, tuple(facts["gpus"]))
    offered = None if spec.gpus is None and not gpus else gpus
    ours = ("", "") if spec.is_this_machine else (facts["executable"], facts["code"])
    exposed = tuple(facts["exposed"])
    return Host(
        spec.address,
        cores,
        offered,
        frozenset(facts["set"]),
        exposed,
        python=ours[0],
        code=ours[1],
        dialled_at=_inside(spec, exposed, subnet) if subnet is not None else "",
    )


def _inside(spec: HostSpec, addresses: Sequence[str], subnet: str) -> str:
    import ipaddress

    network = ipaddress.ip_network(subnet, strict=False)
    for address in addresses:
        if ipaddress.ip_address(address) in network:
            return address
    there = f"it has {', '.join(addresses)}" if addresses else "it has none but its own"
    raise UnavailableError(f"{spec.address} has no address in {subnet}", there)


def place(config: ClusterConfig, hosts: Sequence[Host]) -> tuple[Task, ...]:
    """Every task of the cluster, numbered in the order of JOBS, with its share of its host.

    Workers fill the hosts in order; a chief sits on the first host, an evaluator on the last, parameter servers go
    round. Tasks of one host share it evenly.

    Raises:
        RequestError: more GPUs were asked for than a host has.
    """
    taken = seats(config, [host.address for host in hosts])
    jobs: dict[str, list[str]] = {host.address: [] for host in hosts}
    for job, _, address in taken:
        jobs[address].append(job)
    shares = {host.address: iter(_shares(config, host, jobs[host.address])) for host in hosts}
    return tuple(
        Task(number, job, index, address, *next(shares[address])) for number, (job, index, address) in enumerate(taken)
    )


def seats(config: ClusterConfig, addresses: Sequence[str]) -> list[tuple[str, int, str]]:
    """Job, index and host of each task, by number; of the hosts, no more than their addresses has to be known."""
    workers = [address for address, count in zip(addresses, spread(config), strict=True) for _ in range(count)]
    at = {
        "chief": list(addresses[:1]) * config.chief,
        "worker": workers,
        "ps": [addresses[i % len(addresses)] for i in range(config.ps)],
        "evaluator": list(addresses[-1:]) * config.evaluator,
    }
    return [(job, index, address) for job in JOBS for index, address in enumerate(at[job])]


def without(config: ClusterConfig, gone: Mapping[str, str]) -> ClusterConfig:
    """What is left of the cluster without some hosts: on each other one as many workers as before; the rest is placed anew.

    Args:
        gone: address -> why, in words, of each host that is not there.

    Raises:
        UnavailableError: fewer workers would be left than ``min_workers``.
    """
    if not gone:
        return config
    counts = zip(config.hosts, spread(config), strict=True)
    left = tuple(host._replace(workers=count) for host, count in counts if host.address not in gone)
    workers = sum(host.workers or 0 for host in left)
    said = "; ".join(f"{host} is gone: {why}" for host, why in gone.items())
    if config.min_workers is None:
        hint = "with --min-workers, the run would go on without it" if left else ""
        raise UnavailableError(said, hint)
    if workers < config.min_workers:
        raise UnavailableError(f"{said}; that leaves {workers} of at least {config.min_workers} workers")
    return replace(config, hosts=left, workers=workers)


def dialled(tasks: Sequence[Task]) -> dict[str, list[int]]:
    """Host -> numbers of its tasks that need a port."""
    needs: dict[str, list[int]] = {}
    for task in tasks:
        if task.is_dialled:
            needs.setdefault(task.host, []).append(task.number)
    return needs


def spread(config: ClusterConfig) -> list[int]:
    """How many workers each host gets: what it says itself, the rest of the total evenly over the others."""
    given = [host.workers for host in config.hosts]
    silent = given.count(None)
    rest = config.workers - sum(count for count in given if count is not None)
    shares = iter([rest // silent + (i < rest % silent) for i in range(silent)] if silent else [])
    return [next(shares) if count is None else count for count in given]


def _shares(
    config: ClusterConfig, host: Host, jobs: Sequence[str]
) -> list[tuple[tuple[int, ...], tuple[str, ...] | None]]:
    cores = divide(host.cores, len(jobs)) if config.partition else [()] * len(jobs)
    computing = sum(job != "ps" for job in jobs)
    gpus = iter(_gpus(config, host, computing))
    return [
        (mine, None if host.gpus is None else () if job == "ps" else next(gpus))
        for mine, job in zip(cores, jobs, strict=True)
    ]


def divide(cores: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Cut ``cores`` into contiguous even parts; with fewer cores than parts, give out one each, round and round."""
    if not cores or not parts:
        return [()] * parts
    if len(cores) < parts:
        return [(cores[i % len(cores)],) for i in range(parts)]
    bounds = [i * len(cores) // parts for i in range(parts + 1)]
    return [tuple(cores[low:high]) for low, high in pairwise(bounds)]


def _gpus(config: ClusterConfig, host: Host, tasks: int) -> list[tuple[str, ...]]:
    # Two processes on one GPU fight for its memory, and NCCL refuses them: where there is no GPU for each, none gets any.
    there = host.gpus or ()
    each = config.gpus_per_task
    if each is None:
        each = len(there) // tasks if tasks else 0
    if each * tasks > len(there) and host.known:
        raise RequestError(
            f"{host.address} offers {len(there)} GPUs, but its tasks need {each * tasks}: {tasks} with {each} each",
            "ask for fewer GPUs per task, or fewer workers",
        )
    return [there[i * each : (i + 1) * each] for i in range(tasks)]


def _assumed(asked: Sequence[object] | int | None) -> tuple[int, ...]:
    match asked:
        case None:
            return ()
        case int():
            return tuple(range(asked))
        case _:
            return tuple(asked)  # type: ignore[arg-type]


def _chosen(spec: HostSpec, noun: str, asked: Sequence[_T] | int | None, there: tuple[_T, ...]) -> tuple[_T, ...]:
    match asked:
        case None:
            return there
        case int():
            if asked > len(there):
                raise RequestError(f"{spec.address}: {asked} {noun} asked for, but it offers {len(there)}")
            return there[:asked]
        case _:
            if missing := [str(one) for one in asked if one not in there]:
                raise RequestError(
                    f"{spec.address}: {noun} {', '.join(missing)} asked for, but it offers {', '.join(map(str, there)) or 'none'}"
                )
            return tuple(asked)
