from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from launcher.cli.logs import _parted
from launcher.cli.status import span
from launcher.logs import Logs

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def test_what_has_been_written_since_in_the_order_of_the_plan(tmp_path: Path) -> None:
    for name in ("attempt-0/worker-10.log", "attempt-0/worker-2.log", "attempt-0/chief-0.log", "attempt-10/ps-0.log"):
        write(tmp_path, name, name)
    found = Logs(tmp_path, None, None)
    assert [(attempt, slug) for attempt, slug, _ in found.more()] == [
        (0, "chief-0"),
        (0, "worker-2"),
        (0, "worker-10"),
        (10, "ps-0"),
    ]
    assert found.slugs == ["chief-0", "worker-2", "worker-10", "ps-0"]
    assert list(found.more()) == []
    write(tmp_path, "attempt-0/worker-2.log", "more")
    write(tmp_path, "attempt-2/worker-2.log", "again")
    assert list(found.more()) == [(0, "worker-2", b"more"), (2, "worker-2", b"again")]


def test_of_one_task_or_attempt(tmp_path: Path) -> None:
    for name in ("attempt-0/worker-1.log", "attempt-0/worker-11.log", "attempt-1/worker-1.log"):
        write(tmp_path, name, "x")
    assert list(Logs(tmp_path, "worker-1", None).more()) == [(0, "worker-1", b"x"), (1, "worker-1", b"x")]
    assert list(Logs(tmp_path, None, 1).more()) == [(1, "worker-1", b"x")]
    assert list(Logs(tmp_path / "absent", None, None).more()) == []


@pytest.mark.parametrize(
    ("words", "parted"),
    [
        ((), (None, None)),
        (("worker", "1"), (None, "worker-1")),
        (("worker-1",), (None, "worker-1")),
        (("worker:1",), (None, "worker-1")),
        (("a", "ps", "0"), ("a", "ps-0")),
        (("a", "evaluator-0"), ("a", "evaluator-0")),
        (("./worker-1",), ("./worker-1", None)),
    ],
)
def test_a_run_and_a_task_by_their_names(words: tuple[str, ...], parted: tuple[str | None, str | None]) -> None:
    assert _parted(words) == parted


def test_what_is_neither() -> None:
    with pytest.raises(click.UsageError, match="b is no task"):
        _parted(("a", "b"))


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 d")]
)
def test_spans_of_time(seconds: float, words: str) -> None:
    assert span(seconds) == words
