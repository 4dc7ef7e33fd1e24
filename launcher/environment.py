"""The variables that a task is given on top of its host's environment, and why each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.config import ClusterConfig
    from launcher.placement import Task


class Setting(NamedTuple):
    """A variable, its value, and where that came from."""

    name: str
    value: str
    why: str


def settings(
    who: Sequence[Setting], task: Task, decided: frozenset[str], asked_for: Sequence[Setting], *, one_core: bool
) -> list[Setting]:
    """All that a task is given; of two with the same name the later one counts.

    Args:
        who: ``names``, which say who it is.
        decided: the names that the owner of its host has set. Those are left alone, as those are that the user has set.
        asked_for: what the user has set.
        one_core: each worker of its host has one core.
    """
    decided = decided.union(one.name for one in asked_for)
    return [*who, *_shares(task, decided), *_memory(decided, one_core=one_core), *asked_for]


def names(config: ClusterConfig, task: Task, run: str, attempt: int) -> list[Setting]:
    """Who the task is, and where what it writes is kept."""
    told = {"TFLAUNCH_RUN": run, "TFLAUNCH_ATTEMPT": str(attempt), "TFLAUNCH_TASK": f"{task.job}:{task.index}"}
    if task.is_dialled:
        # Lets TensorFlow bind the port that the agent holds for it (agent/ports.py).
        told["TF_GRPC_REUSE_PORT"] = "1"
    given = [Setting(name, value, "tflaunch") for name, value in told.items()]
    if config.checkpoint_dir is not None:
        why = config.origins["checkpoint_dir"]
        given.append(Setting("TFLAUNCH_CHECKPOINT_DIR", config.checkpoint_dir, why))
    return given


def _shares(task: Task, decided: frozenset[str]) -> list[Setting]:
    divided = {"PYTHONUNBUFFERED": "1", **_thread_limits(len(task.cores))}
    given = [Setting(name, value, "its share") for name, value in divided.items() if name not in decided]
    if task.gpus is not None:
        # Set even where the user had set it: his list is what was divided.
        given.append(Setting("CUDA_VISIBLE_DEVICES", ",".join(task.gpus), "its share"))
    return given


def _memory(decided: frozenset[str], *, one_core: bool) -> list[Setting]:
    # What a step has freed, the next one needs again. glibc gives back a tensor of 32 MiB, and the end of a heap, and the kernel
    # empties each page before it is given anew. Here all of it stays with the worker, but for the end of a heap that has a GiB free.
    # Threads have heaps of their own, and none of those holds more than 64 MiB; a worker with one core loses nothing if all
    # of them use the one that may grow. By host, as a fork server has the same for all of its workers.
    # mallopt(3); what it is worth: docs/facts.md, Memory.
    # One setting changes what another means, so who has made any has made all of them.
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in decided):
        return []
    kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
    if one_core:
        kept["MALLOC_ARENA_MAX"] = "1"
    return [Setting(name, value, "tflaunch") for name, value in kept.items()]


def asked_for(config: ClusterConfig, forwarded: Mapping[str, str]) -> list[Setting]:
    """What the user has set; what is set comes after what is ``forwarded``."""
    why = config.origins.get("env", "cluster.json")
    return [
        *(Setting(name, value, "forwarded") for name, value in forwarded.items()),
        *(Setting(name, value, why) for name, value in config.env.items()),
    ]


def _thread_limits(cores: int) -> dict[str, str]:
    # Two threads between operations at least, so that a collective and the computing beside it can overlap: pinned to one
    # core each, 2 workers were measured fastest that way (CNN of 1.0 M parameters, TensorFlow 2.21).
    if not cores:
        return {}
    return {
        "OMP_NUM_THREADS": str(cores),
        "TF_NUM_INTRAOP_THREADS": str(cores),
        "TF_NUM_INTEROP_THREADS": str(max(2, cores)),
    }
