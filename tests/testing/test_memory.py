from __future__ import annotations

import pytest

from launcher.errors import UnavailableError
from launcher.testing import memory


def test_a_few_have_room() -> None:
    memory.require(2)


def test_more_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_of_machine", lambda: 3 << 30)
    monkeypatch.setattr(memory, "_of_container", lambda: 1 << 30)
    memory.require(170)
    with pytest.raises(UnavailableError, match=r"^171 tasks need 1\.0 GiB of memory.*: 1\.0 GiB are free"):
        memory.require(171)


def test_where_nobody_says_everything_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_of_machine", lambda: None)
    monkeypatch.setattr(memory, "_of_container", lambda: None)
    memory.require(10**9)


def test_this_machine_says() -> None:
    found = memory._of_machine()
    assert found is None or found > 1 << 20
