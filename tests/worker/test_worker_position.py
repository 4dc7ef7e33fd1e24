from __future__ import annotations

import pytest

from worker.checkpoint.position import BEGINNING, Position


def test_it_survives_json() -> None:
    position = Position(120, 5, 5, 7, ({"step": 115, "loss": 0.1},), (0.25, 1e-30))
    assert Position.from_json(position.to_json()) == position
    assert Position.from_json(BEGINNING.to_json()) == BEGINNING


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"step": 1, "history": [], "partial": [], "colour": "red"}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Position.from_json(text)


def test_only_what_was_measured_here_counts_as_measured() -> None:
    history = ({"step": 23, "loss": 2.0}, {"step": 46, "loss": 1.0})
    assert Position(step=46, history=history).measured == history[1]
    assert Position(step=47, history=history).measured == {}
    assert BEGINNING.measured == {}
