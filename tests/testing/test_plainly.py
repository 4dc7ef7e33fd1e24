from __future__ import annotations

import traceback

import pytest

from launcher.errors import RequestError
from launcher.testing.plainly import plainly


@plainly
def fail(error: Exception) -> None:
    try:
        int("inside")
    except ValueError:
        _deeper(error)


def _deeper(error: Exception) -> None:
    raise error


def frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_an_error_of_ours_comes_from_the_callers_line() -> None:
    with pytest.raises(RequestError) as found:
        fail(RequestError("no"))
    assert frames(found.value) == ["test_an_error_of_ours_comes_from_the_callers_line", "wrapped"]
    assert found.value.__suppress_context__


def test_a_bug_shows_where_it_is() -> None:
    with pytest.raises(ValueError, match="bug") as found:
        fail(ValueError("bug"))
    assert frames(found.value)[-1] == "_deeper"
