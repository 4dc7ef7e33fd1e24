"""Every case; a new one is a module here, with a function ``cases``, and a line below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.cases import (
    agents,
    checkpoint,
    hosts,
    idle,
    kill,
    noop,
    output,
    plan,
    recovery,
    slurm,
    testing,
    training,
    warm,
)

if TYPE_CHECKING:
    from tests.benchmarks.case import Case


def every(*, large: bool) -> list[Case]:
    """The cases, in the order of the report; ``large`` adds those, and those launchers, that take minutes."""
    return [
        case
        for module in (
            noop,
            output,
            kill,
            idle,
            warm,
            hosts,
            agents,
            slurm,
            plan,
            recovery,
            testing,
            checkpoint,
            training,
        )
        for case in module.cases(large=large)
    ]
