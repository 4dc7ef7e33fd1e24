"""What cannot be asked of Slurm, or not together. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from launcher.schema import Flaw
from launcher.slurm.script import OURS, workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.config import ClusterConfig, SlurmSpec

_UNITS = (1, 60, 3600)
# sbatch(1), --signal.
_EARLY = 60


def found(config: ClusterConfig) -> Iterator[Flaw]:
    """Yield each of them, at its key."""
    spec, given = config.slurm, {name for name, origin in config.origins.items() if origin != "default"}
    if "engine" in given and config.engine != "slurm":
        yield Flaw(("engine",), f"{config.engine} reaches no nodes of Slurm", "leave it out")
    if "hosts" in given:
        yield Flaw(("hosts",), "are for Slurm to choose", "leave them out; --nodelist can be one of slurm.options")
    if config.private:
        yield Flaw(("private",), "is for this machine alone")
    if spec.nodes is not None and spec.nodes > workers(config):
        count = workers(config)
        yield Flaw(
            ("slurm", "nodes"), f"are {spec.nodes}, but there {'is' if count == 1 else 'are'} only {count} to run"
        )
    yield from _in_time(spec)
    yield from _gpus_suffice(config)
    for index, option in enumerate(spec.options):
        # A value stands behind a short name as it is.
        name = re.split(r"[=\s]", option, maxsplit=1)[0] if option.startswith("--") else option[:2]
        if name in OURS:
            yield Flaw(("slurm", "options", index), f"{name} is ours to give", f'say it with "{OURS[name]}"')


def seconds(time: str) -> int | None:
    """A limit as sbatch takes it; None for none at all, which it calls 0."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        total = int(days) * 86_400 + sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    elif len(parts) == 1:
        total = parts[0] * 60
    else:
        total = sum(part * unit for part, unit in zip(reversed(parts), _UNITS, strict=False))
    return total or None


def _in_time(spec: SlurmSpec) -> Iterator[Flaw]:
    limit = seconds(spec.time) if spec.time is not None else None
    if limit is not None and spec.warning + _EARLY >= limit:
        message = f"the warning comes {spec.warning} s before the limit of {limit} s, or up to {_EARLY} s earlier: no time is left"
        yield Flaw(("slurm", "time"), message, "ask for more time, or a shorter warning")


def _gpus_suffice(config: ClusterConfig) -> Iterator[Flaw]:
    spec = config.slurm
    if spec.gpus_per_node is None or not config.gpus_per_task or spec.nodes is None:
        return
    there = int(spec.gpus_per_node.rpartition(":")[2])
    needed = -(-workers(config) // spec.nodes) * config.gpus_per_task
    if needed > there:
        yield Flaw(("gpus_per_task",), f"need {needed} GPUs on a node, but {there} are asked for there")
