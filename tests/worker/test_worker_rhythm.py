from __future__ import annotations

from math import nan

import pytest

from worker.checkpoint.position import Position
from worker.checkpoint.rhythm import Best, Every, ask_again_after


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100 steps", Every(steps=100)),
        ("1 step", Every(steps=1)),
        ("30s", Every(seconds=30)),
        ("10 min", Every(seconds=600)),
        ("2 hours", Every(seconds=7200)),
        ("1 epoch, 5 min", Every(epochs=1, seconds=300)),
        ("end", Every()),
    ],
)
def test_what_can_be_said(text: str, expected: Every) -> None:
    assert Every.parse(text) == expected


@pytest.mark.parametrize("text", ["", "100", "0 steps", "-1 s", "1.5 s", "5 parsecs", "1 epoch,", "end, 1 epoch"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not like '100 steps', '30 s'"):
        Every.parse(text)


def test_a_save_is_due_when_a_multiple_has_been_passed_however_far_a_call_goes() -> None:
    every = Every(steps=10)
    assert not every.crossed(Position(step=3), Position(step=9, epoch=0))
    assert every.crossed(Position(step=3), Position(step=10, epoch=0))
    assert every.crossed(Position(step=3), Position(step=14, epoch=0))
    assert not every.crossed(Position(step=14), Position(step=19, epoch=0))


def test_epochs_count_when_they_are_whole() -> None:
    every = Every(epochs=2)
    assert not every.crossed(Position(), Position(step=50, epoch=1))
    assert every.crossed(Position(epoch=1), Position(step=60, epoch=2))
    assert not Every().crossed(Position(), Position(step=10**6, epoch=10**6))


@pytest.mark.parametrize(("slower", "most"), [(1.0, 102), (10.0, 510)])
def test_the_chief_is_asked_seldom_and_a_slower_step_delays_a_save_by_half_at_most(slower: float, most: int) -> None:
    now, step_time, asked = 0.0, 0.1, 0
    while (pause := ask_again_after(100 - now, step_time)) > 0:
        now += pause * step_time * slower
        step_time *= slower if asked == 0 else 1
        asked += 1
    assert 99 <= now <= most
    assert asked <= 12


def test_a_pause_is_never_endless() -> None:
    assert ask_again_after(5, 0) > 0
    assert ask_again_after(-5, 0.1) == 0
    assert ask_again_after(1, 60) == 0


MEASURES = {10: {"loss": 0.5}, 20: {"loss": 0.2}, 30: {"loss": 0.2}, 40: {"loss": nan}, 50: {}}


@pytest.mark.parametrize(("text", "step"), [("min:loss", 20), ("max:loss", 10), ("max:accuracy", None)])
def test_the_best_is_the_older_of_equals_and_never_nan(text: str, step: int | None) -> None:
    assert Best.parse(text).of(MEASURES) == step


@pytest.mark.parametrize("text", ["loss", "min:", "least:loss", ""])
def test_a_best_that_is_none_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not like 'min:loss' or 'max:accuracy'"):
        Best.parse(text)


@pytest.mark.parametrize(
    ("every", "step", "left"),
    [
        (Every(steps=10), 0, 6),
        (Every(steps=10), 7, 3),
        (Every(steps=10), 10, 6),
        (Every(epochs=1), 7, 6),
        (Every(steps=4), 3, 1),
    ],
)
def test_calls_of_several_steps_end_where_a_save_is_due(every: Every, step: int, left: int) -> None:
    assert every.steps_left(step, 6) == left
