from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.arrivals import Arrivals
from launcher.errors import UnavailableError


def test_each_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    assert not arrivals.whole
    arrivals.expect([("a/b", 0o755, 4), ("empty", 0o600, 0)])
    arrivals.take(0, b"12")
    assert not (tmp_path / "a/b").exists()
    assert not arrivals.whole
    arrivals.take(0, b"34")
    assert arrivals.whole
    assert arrivals.count == 2
    assert (tmp_path / "a/b").read_bytes() == b"1234"
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").read_bytes() == b""
    assert sorted(os.listdir(tmp_path / "a")) == ["b"]  # noqa: PTH208 - hidden ones, too


def test_nothing_was_found(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    arrivals.expect([])
    assert arrivals.whole


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "out/x"])
def test_no_host_can_write_anywhere_else(tmp_path: Path, path: str) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/out").symlink_to(tmp_path)
    with pytest.raises(UnavailableError, match="outside of"):
        Arrivals(tmp_path / "here").expect([(path, 0o644, 1)])


def test_what_cannot_be_written(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    (tmp_path / "a").write_text("a file")
    arrivals.expect([("a/b", 0o644, 1)])
    with pytest.raises(UnavailableError, match=r"cannot write .*/a/b"):
        arrivals.take(0, b"x")
