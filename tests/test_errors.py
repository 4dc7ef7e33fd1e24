from __future__ import annotations

import signal

import pytest

from launcher.errors import (
    ConfigError,
    Fault,
    Interrupted,
    RequestError,
    TflaunchError,
    UnavailableError,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("m"), 2),
        (ConfigError("cluster.json", ()), 2),
        (UnavailableError("m"), 69),
        (Interrupted(signal.SIGINT), 130),
        (Interrupted(signal.SIGTERM), 143),
    ],
)
def test_each_has_its_exit_status(error: TflaunchError, status: int) -> None:
    assert isinstance(error, TflaunchError)
    assert error.exit_status == status


def test_what_happened_and_what_to_do() -> None:
    assert str(RequestError("no such script: a.py")) == "no such script: a.py"
    error = RequestError("no such script: a.py", "name another")
    assert str(error) == "no such script: a.py\n  name another"
    assert error.hint == "name another"


def test_an_interruption_names_its_signal() -> None:
    assert str(Interrupted(signal.SIGTERM)) == "interrupted by SIGTERM"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("$.workers", "must be at least 1"), "$.workers: must be at least 1"),
        (Fault("-n", "must be at least 1", "try 1"), "-n: must be at least 1 (try 1)"),
    ],
)
def test_a_fault_says_where(fault: Fault, expected: str) -> None:
    assert str(fault) == expected


@pytest.mark.parametrize(("count", "title"), [(1, "cluster.json: 1 fault"), (2, "cluster.json: 2 faults")])
def test_all_faults_of_a_file_are_told(count: int, title: str) -> None:
    faults = tuple(Fault(f"$.k{i}", "bad") for i in range(count))
    error = ConfigError("cluster.json", faults)
    assert str(error).splitlines() == [title, *(f"  $.k{i}: bad" for i in range(count))]
    assert error.faults == faults
