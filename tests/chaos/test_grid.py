from __future__ import annotations

from random import Random
from typing import get_args

import pytest

from tests.chaos.grid import AGENT, FAULTS, PHASES, STEPS, VICTIMS, Point, at_random, cells, sample
from tests.chaos.promise import promised
from tests.chaos.test_chaos import CASES, SEED


def test_the_grid_has_every_phase_fault_and_victim() -> None:
    every = list(cells())
    assert len(set(every)) == len(every)
    assert {cell.phase for cell in every} == set(PHASES)
    assert {cell.fault for cell in every} == set(FAULTS)
    assert {cell.victim for cell in every} == set(VICTIMS)
    assert {cell.fault for cell in every if cell.victim in AGENT} == {"SIGKILL", "SIGSTOP", "SIGTERM"}
    assert {cell.victim for cell in every if cell.fault == "full disk"} == {"chief"}


@pytest.mark.parametrize("seed", [SEED, *range(100, 110)])
def test_a_sample_of_the_size_that_is_tested_always_covers(seed: int) -> None:
    chosen = sample(seed, CASES)
    possible = {(cell.fault, cell.victim) for cell in cells()}
    assert len(chosen) == len(set(chosen)) == CASES
    assert {(case.fault, case.victim) for case in chosen} == possible
    for victim in VICTIMS:
        assert len({case.phase for case in chosen if case.victim == victim}) >= 3
    assert {case.phase for case in chosen} == set(PHASES)


def test_a_sample_is_the_seeds_own() -> None:
    assert sample(7, 50) == sample(7, 50) != sample(8, 50)
    assert sample(7, 50)[:20] == sample(7, 20)
    assert len(sample(7, 10_000)) == len(list(cells()))


def test_every_moment_can_be_hit() -> None:
    random = Random(1)
    found = [at_random(cell, random) for cell in cells() for _ in range(50)]
    assert {case.point for case in found} == set(get_args(Point))
    assert {case.step for case in found if case.phase == "steps"} == set(range(1, STEPS))
    assert {case.step for case in found if case.phase == "checkpoint"} == set(range(3, STEPS, 3))


def test_there_is_a_promise_for_every_case() -> None:
    random = Random(1)
    promises = {promised(at_random(cell, random)).end for cell in cells() for _ in range(20)}
    assert promises == {"goes on", "resumes", "stops", "is refused"}
