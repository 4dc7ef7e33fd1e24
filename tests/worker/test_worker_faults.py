from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from worker import faults

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def got() -> Iterator[list[int]]:
    """The signals that this process sent itself."""
    found: list[int] = []
    before = {number: signal.signal(number, lambda got, _: found.append(got)) for number in (10, 12)}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def boot() -> SimpleNamespace:
    told: list[tuple[str, dict[str, object]]] = []
    return SimpleNamespace(told=told, report=lambda kind, **fields: told.append((kind, fields)))


def test_it_happens_once_when_the_step_has_been_told(boot: SimpleNamespace, got: list[int]) -> None:
    faults.at_steps(boot, [(5, "SIGUSR1")])
    boot.report("progress", step=4)
    assert got == []
    boot.report("progress", step=7, of=9)
    boot.report("progress", step=8)
    assert got == [signal.SIGUSR1]
    assert boot.told[1] == ("progress", {"step": 7, "of": 9})


def test_several_come_in_order_of_their_steps(boot: SimpleNamespace, got: list[int]) -> None:
    faults.at_steps(boot, [(5, "SIGUSR2"), (3, "SIGUSR1")])
    boot.report("progress", step=3)
    boot.report("progress", step=5)
    assert got == [signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.parametrize(
    ("kind", "fields"), [("checkpoint", {"step": 9}), ("progress", {}), ("progress", {"step": "9"})]
)
def test_nothing_else_is_a_step(boot: SimpleNamespace, got: list[int], kind: str, fields: dict[str, object]) -> None:
    faults.at_steps(boot, [(5, "SIGUSR1")])
    boot.report(kind, **fields)
    assert got == []


def test_a_child_is_not_meant(boot: SimpleNamespace, got: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    faults.at_steps(boot, [(5, "SIGUSR1")])
    monkeypatch.setattr(os, "getpid", lambda: 1)
    boot.report("progress", step=9)
    assert got == []


def test_without_faults_reports_are_left_as_they_are(boot: SimpleNamespace) -> None:
    report = boot.report
    faults.at_steps(boot, [])
    assert boot.report is report
