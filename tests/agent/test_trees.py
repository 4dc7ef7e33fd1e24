from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.agent import trees

if TYPE_CHECKING:
    from launcher.agent.trees import Entry


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def entry(path: str, content: bytes, mode: int = 0o644) -> Entry:
    return (path, mode, len(content), hashlib.sha256(content).hexdigest())


def looked(name: str, *entries: Entry) -> trees.Tree:
    tree = trees.Tree(name, entries)
    for _ in tree.look():
        pass
    return tree


class TestTree:
    def test_what_is_lacking_is_taken_in_piece_by_piece(self) -> None:
        tree = looked("t", entry("a/b.py", b"12345", 0o755), entry("c", b"x"), entry("empty", b""))
        assert tree.lacking == [0, 1]
        folder = Path(tree.folder)
        tree.receive(0, b"123")
        assert not (folder / "a/b.py").exists()
        tree.receive(0, b"45")
        tree.receive(1, b"x")
        assert tree.lacking == []
        assert (folder / "a/b.py").read_bytes() == b"12345"
        assert (folder / "a/b.py").stat().st_mode & 0o777 == 0o755
        assert (folder / "empty").read_bytes() == b""
        assert sorted(path.name for path in folder.rglob("*")) == ["a", "b.py", "c", "empty"]
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_nothing_is_lacking_the_next_time_and_what_was_made_there_stays(self) -> None:
        tree = looked("t", entry("a", b"1"))
        tree.receive(0, b"1")
        Path(tree.folder, "made").write_text("by a worker")
        again = looked("t", entry("a", b"1"))
        assert again.lacking == []
        assert Path(again.folder, "made").exists()

    def test_what_was_changed_there_is_lacking(self) -> None:
        tree = looked("t", entry("a", b"1"))
        tree.receive(0, b"1")
        Path(tree.folder, "a").write_bytes(b"2")
        assert looked("t", entry("a", b"1")).lacking == [0]

    def test_permissions_alone_are_set(self) -> None:
        looked("t", entry("a", b"1")).receive(0, b"1")
        tree = looked("t", entry("a", b"1", 0o700))
        assert tree.lacking == []
        assert Path(tree.folder, "a").stat().st_mode & 0o777 == 0o700

    def test_what_an_earlier_content_has_is_copied_from_there(self) -> None:
        earlier = looked("one", entry("a", b"1"), entry("b", b"2"))
        earlier.receive(0, b"1")
        earlier.receive(1, b"2")
        Path(earlier.folder, "b").write_bytes(b"3")  # a worker's doing
        later = looked("two", entry("a", b"1"), entry("b", b"2"))
        assert later.lacking == [1]
        Path(later.folder, "a").write_bytes(b"changed")
        assert Path(earlier.folder, "a").read_bytes() == b"1"

    def test_links(self) -> None:
        for to in ("a", "b", "b"):
            tree = looked("t", ("link", 0, 0, to))
            assert os.readlink(Path(tree.folder, "link")) == to  # noqa: PTH115


class TestFound:
    def test_files_and_folders(self, tmp_path: Path) -> None:
        for name in ("a/1", "a/b/.2", "c/3", "c/4.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        (tmp_path / "a/link").symlink_to("/etc/passwd")
        assert [path for path, *_ in trees.found(str(tmp_path), ["a", "c/*.txt", "nothing"])] == [
            "a/1",
            "a/b/.2",
            "c/4.txt",
        ]
        assert len(trees.found(str(tmp_path), ["**"])) == 4

    def test_pieces(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(bytes(600_000))
        entries = trees.found(str(tmp_path), ["a"])
        assert [(number, len(data)) for number, data in trees.pieces(str(tmp_path), entries)] == [
            (0, 262_144), (0, 262_144), (0, 75_712)
        ]  # fmt: skip

    @pytest.mark.parametrize("size", [5, 50])
    def test_a_file_that_changes_meanwhile_is_as_long_as_it_was(self, tmp_path: Path, size: int) -> None:
        (tmp_path / "a").write_bytes(bytes(10))
        entries = trees.found(str(tmp_path), ["a"])
        (tmp_path / "a").write_bytes(bytes(size))
        assert sum(len(data) for _, data in trees.pieces(str(tmp_path), entries)) == 10
