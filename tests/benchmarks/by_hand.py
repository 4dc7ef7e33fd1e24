"""A cluster of TensorFlow as somebody starts it by hand: a shell loop that tells each copy its place."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from launcher.agent.ports import lease
from tests.benchmarks.launchers import SHELL

if TYPE_CHECKING:
    from tests.benchmarks.launchers import Job


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now, all different."""
    held = lease(count, None)
    for one in held:
        one.close()
    return [one.port for one in held]


def _loop(job: Job) -> list[str]:
    cluster = json.dumps({"worker": [f"127.0.0.1:{port}" for port in free_ports(job.copies)]})
    place = f"""TF_CONFIG='{{"cluster": {cluster}, "task": {{"type": "worker", "index": '$i'}}}}'"""
    numbers = " ".join(str(number) for number in range(job.copies))
    start = f'for i in {numbers}; do {place} "$@" & all="$all $!"; done'
    return ["-c", f"{start}; for each in $all; do wait $each || exit; done", "sh", *job.command]


BY_HAND = replace(SHELL, arguments=_loop)
