"""What can be asked of a test's cluster: the settings of ``tflaunch run``, as far as they make sense there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING

from launcher import preflight
from launcher.config import ClusterConfig
from launcher.errors import RequestError
from launcher.layers import Layer
from launcher.schema import nearest
from launcher.testing import memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

SOURCE = "tf_cluster()"
# Which function it is to be is known when one is run.
_NONE_YET = "-"


@dataclass(frozen=True, kw_only=True)
class Settings(ClusterConfig):
    """The settings of ``tflaunch run``, and what only a test can ask for.

    Attributes:
        links: each task has a network address of its own, and the lines between them can be cut.
    """

    links: bool = False


def settings_of(folder: Path, asked: Mapping[str, Any]) -> Settings:
    """A configuration with the logs below ``folder``.

    Raises:
        RequestError: it cannot be, or this is a task of a cluster itself.
        UnavailableError: there is no memory for so many tasks.
    """
    if task := os.environ.get("TFLAUNCH_TASK"):
        raise RequestError(f"this is {task.replace(':', ' ')} of a cluster already", "start clusters from a test alone")
    for name in asked.keys() - set(KNOWN):
        raise RequestError(f"a cluster has no setting {name}", nearest(name, KNOWN) or f"known: {', '.join(KNOWN)}")
    links = bool(asked.get("links"))
    values = {**_values(**asked), "function": _NONE_YET, "run_dir": str(folder)}
    config = preflight.checked(Layer(SOURCE, values, {name: f"{name}=" for name in values}))
    memory.require(config.workers + config.chief + config.ps + config.evaluator)
    return Settings(**vars(config), links=links)


def _values(
    *,
    workers: int = 2,
    chief: bool = False,
    evaluator: int = 0,
    ps: int = 0,
    gpus: int = 0,
    timeout: float = 120.0,
    grace: float = 30.0,
    env: Mapping[str, str] | None = None,
    ports: str | None = None,
    private: bool = False,
    links: bool = False,
    partition: bool = True,
    warm: bool | None = None,
) -> dict[str, object]:
    """The settings under the keys of cluster.json.

    Args:
        gpus: for each task; none unless a test asks for them, so that it is the same test everywhere.
        timeout: seconds that one run may take.
        links: is nothing that cluster.json knows; it takes a network that nobody else is in.
    """
    return {
        "workers": workers,
        "jobs": {"chief": int(chief), "evaluator": evaluator, "ps": ps},
        "gpus_per_task": gpus,
        "timeout": timeout,
        "grace": grace,
        "env": dict(env or {}),
        "private": private or links,
        "partition": partition,
        **{name: value for name, value in (("ports", ports), ("warm", warm)) if value is not None},
    }


KNOWN = tuple(signature(_values).parameters)
