from __future__ import annotations

import functools
import os
import pickle
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from launcher.errors import RequestError, UnavailableError
from launcher.testing.pickling import name_of, pickled

if TYPE_CHECKING:
    from collections.abc import Callable

LOCK = threading.Lock()


def double(number: int) -> int:
    return 2 * number


class Doubler:
    def __call__(self, number: int) -> int:
        return double(number)


def use_lock() -> bool:
    return LOCK.locked()


@pytest.mark.parametrize(
    "function", [double, lambda number: 2 * number, functools.partial(double), Doubler(), Doubler().__call__]
)
def test_whatever_can_be_called_goes_by_value(function: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    there = pickled(function, (4,), {})
    monkeypatch.setitem(sys.modules, __name__, None)
    monkeypatch.delitem(sys.modules, __name__)
    monkeypatch.setattr(sys, "path", [])
    called, args, kwargs = pickle.loads(there)
    assert called(*args, **kwargs) == 8


def test_what_is_installed_goes_by_name() -> None:
    for function in (os.getenv, psutil.pid_exists, len):
        called, _, _ = pickle.loads(pickled(function, (), {}))
        assert called is function


def test_code_keeps_its_file() -> None:
    called, _, _ = pickle.loads(pickled(double, (), {}))
    assert called.__code__.co_filename == __file__


def test_a_lock_in_a_closure_is_named() -> None:
    guard = threading.Lock()
    with pytest.raises(RequestError, match=r"^<lambda> cannot be sent to its tasks: guard, a lock, cannot be pickled"):
        pickled(lambda: not guard.locked(), (), {})


def test_a_global_that_cannot_go_is_named() -> None:
    with pytest.raises(RequestError, match=r"^use_lock cannot be sent to its tasks: LOCK, a lock, cannot be pickled"):
        pickled(use_lock, (), {})


def test_an_argument_that_cannot_go_is_named() -> None:
    with pytest.raises(RequestError, match="argument 2, a lock, cannot be pickled"):
        pickled(double, (1, LOCK), {})
    with pytest.raises(RequestError, match="lock, a lock, cannot be pickled"):
        pickled(double, (), {"lock": LOCK})


def test_without_cloudpickle_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(UnavailableError, match=r"tflaunch\[pytest\]"):
        pickled(double, (), {})


@pytest.mark.parametrize(
    ("function", "name"),
    [(double, "double"), (functools.partial(functools.partial(double)), "double"), (Doubler(), "Doubler")],
)
def test_name_of(function: Callable[..., object], name: str) -> None:
    assert name_of(function) == name
