"""What can be seen of Slurm from a login node, held against what is to be asked of it. Source: sinfo(1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from launcher.checkup import Finding
from launcher.errors import UnavailableError
from launcher.slurm.contradictions import seconds
from launcher.slurm.controller import ask
from launcher.slurm.script import workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from launcher.config import ClusterConfig

# Partition, availability, limit, nodes, allocated/idle/other/total of them, cores, MiB and generic resources of each.
_FORMAT = "%P|%a|%l|%D|%F|%c|%m|%G"


class Partition(NamedTuple):
    """A partition.

    Attributes:
        usual: jobs that name none go there.
        limit: the longest time, as Slurm writes it.
        nodes, idle: how many there are, and how many have nothing to do.
        cores, memory: of the smallest node; ``memory`` in MiB.
        gpus: generic resources of a node, as Slurm writes them; empty for none.
    """

    name: str
    usual: bool
    up: bool
    limit: str
    nodes: int
    idle: int
    cores: int
    memory: int
    gpus: str


class Site(NamedTuple):
    """A Slurm cluster.

    Attributes:
        controller: what the controller says of itself.
        vouching: what vouches for users there, such as munge.
    """

    version: str
    controller: str
    vouching: str
    partitions: tuple[Partition, ...]


def look() -> Site:
    """Ask the controller. That it answers at all shows that munge, or what else vouches for users here, works.

    Raises:
        UnavailableError: there is none, or it does not answer.
    """
    version = ask("sinfo", "--version").strip().removeprefix("slurm ")
    try:
        told = ask("sinfo", "--noheader", f"--format={_FORMAT}")
    except UnavailableError as error:
        hint = (
            "is munged running here, with the cluster's key?"
            if "unge" in str(error)
            else "scontrol ping says whether it is up"
        )
        raise UnavailableError(str(error), hint) from None
    vouching = re.search(r"^AuthType\s*=\s*(?:auth/)?(\S+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return Site(version, ask("scontrol", "ping").strip(), vouching[1] if vouching else "", parse(told))


def parse(text: str) -> tuple[Partition, ...]:
    """The partitions that sinfo prints; one with several kinds of nodes is several lines there. Pure."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        name, up, limit, nodes, states, cores, memory, gpus = line.split("|")
        one = Partition(
            name.rstrip("*"),
            name.endswith("*"),
            up == "up",
            limit,
            int(nodes),
            int(states.split("/")[1]),
            int(cores.rstrip("+")),
            int(memory.rstrip("+")),
            "" if gpus == "(null)" else gpus,
        )
        found[one.name] = _together(found[one.name], one) if one.name in found else one
    return tuple(found.values())


def _together(one: Partition, other: Partition) -> Partition:
    return one._replace(
        nodes=one.nodes + other.nodes,
        idle=one.idle + other.idle,
        cores=min(one.cores, other.cores),
        memory=min(one.memory, other.memory),
        gpus=", ".join(dict.fromkeys(filter(None, (one.gpus, other.gpus)))),
    )


def findings(config: ClusterConfig, partitions: Sequence[Partition]) -> Iterator[Finding]:
    """Yield what of the request these partitions cannot give."""
    spec = config.slurm
    names = spec.partition.split(",") if spec.partition else [one.name for one in partitions if one.usual]
    there = [one for one in partitions if one.name in names]
    if not there:
        known = f"there is {', '.join(one.name for one in partitions)}"
        missing = f"there is no partition {spec.partition}" if spec.partition else "no partition is the default"
        yield Finding("", "partition", "bad", "no", missing, f"{known}: name one with --partition")
        return
    if not any(one.up for one in there):
        yield Finding("", "partition", "bad", "down", f"partition {', '.join(names)} is down", "sinfo says more")
    most = max(one.nodes for one in there)
    if spec.nodes is not None and spec.nodes > most:
        yield Finding(
            "",
            "nodes",
            "bad",
            str(most),
            f"{spec.nodes} nodes asked for, but partition {', '.join(names)} has {most}",
            "ask for fewer, with more workers on each",
        )
    elif not any(one.idle >= (spec.nodes or 1) for one in there):
        yield Finding(
            "",
            "nodes",
            "warn",
            "busy",
            f"no {spec.nodes or 1} nodes of partition {', '.join(names)} are idle: the job will wait",
            "",
        )
    per_node = -(-workers(config) // spec.nodes) * (spec.cpus_per_task or 1) if spec.nodes else spec.cpus_per_task or 1
    cores = max(one.cores for one in there)
    if per_node > cores:
        yield Finding(
            "",
            "cores",
            "bad",
            str(cores),
            f"{per_node} cores asked for on a node, but there are {cores}",
            "spread the workers over more nodes",
        )
    if (spec.gpus_per_node or config.gpus_per_task) and not any("gpu" in one.gpus for one in there):
        yield Finding(
            "",
            "gpus",
            "bad",
            "none",
            f"partition {', '.join(names)} has no GPUs",
            "name one that has, with --partition",
        )
    yield from _time(spec.time, there)


def _time(asked: str | None, there: Sequence[Partition]) -> Iterator[Finding]:
    wanted = seconds(asked) if asked is not None else None
    limits = [None if one.limit == "infinite" else seconds(one.limit) for one in there]
    if wanted is not None and all(limit is not None and wanted > limit for limit in limits):
        longest = max(there, key=lambda one: seconds(one.limit) or 0).limit
        yield Finding(
            "",
            "time",
            "bad",
            longest,
            f"{asked} asked for, but its partition gives {longest} at most",
            "ask for less, and have it go on: --requeue, or --until-done",
        )
