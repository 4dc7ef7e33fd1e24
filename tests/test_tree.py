from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher import tree as tree_module
from launcher.errors import RequestError
from launcher.tree import Tree, pieces, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train.py", "pkg/a.py", "pkg/.hidden", "data/big", "runs/r/log", "pkg/__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def git(folder: Path, *command: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *command], check=True, capture_output=True)


def names(tree: Tree) -> list[str]:
    return [path for path, *_ in tree.entries]


def look(folder: Path, *patterns: str) -> Tree:
    return read(str(folder), patterns, [str(folder / "runs")])


class TestWhichFiles:
    def test_without_git(self, folder: Path) -> None:
        (folder / "venv").mkdir()
        (folder / "venv/pyvenv.cfg").touch()
        tree = look(folder)
        assert names(tree) == ["data/big", "pkg/a.py", "train.py"]
        assert (tree.commit, tree.dirty) == ("", False)

    def test_what_git_tracks_or_would_track(self, folder: Path) -> None:
        (folder / ".gitignore").write_text("data\n__pycache__\n")
        git(folder, "init", "-q")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "x")
        clean = look(folder)
        assert names(clean) == [".gitignore", "pkg/.hidden", "pkg/a.py", "train.py"]
        assert not clean.dirty
        assert len(clean.commit) == 40
        (folder / "train.py").unlink()
        (folder / "new.py").touch()
        changed = look(folder)
        assert names(changed) == [".gitignore", "new.py", "pkg/.hidden", "pkg/a.py"]
        assert changed.dirty
        assert (
            f"4 files (0.0 MB) of {folder.name} on each host, commit {clean.commit[:10]} with changes" == changed.words
        )

    def test_a_part_of_a_repository(self, folder: Path) -> None:
        git(folder, "init", "-q")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "x")
        (folder / "train.py").write_text("changed")
        part = read(str(folder / "pkg"), (), [])
        assert names(part) == [".hidden", "__pycache__/a.pyc", "a.py"]
        assert not part.dirty

    def test_those_that_are_named(self, folder: Path) -> None:
        assert names(look(folder, "*.py", "data")) == ["data/big", "train.py"]
        assert names(look(folder, "**/*.py")) == ["pkg/a.py", "train.py"]

    def test_runs_never_belong_to_it(self, folder: Path) -> None:
        assert not [name for name in names(look(folder, "**")) if name.startswith("runs")]

    def test_there_is_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="nothing to copy"):
            look(tmp_path)

    def test_there_is_too_much(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tree_module, "_MOST_FILES", 2)
        with pytest.raises(RequestError, match="holds 3 files"):
            look(folder)
        monkeypatch.undo()
        monkeypatch.setattr(tree_module, "_MOST_BYTES", 2)
        with pytest.raises(RequestError, match=r"holds 0\.0 GiB"):
            look(folder)


class TestDigest:
    def test_the_same_content_has_the_same_name(self, folder: Path) -> None:
        before = look(folder)
        assert look(folder) == before
        assert before.name == f"{folder.name}-{before.digest[:12]}"

    def test_content_permissions_and_names_count(self, folder: Path) -> None:
        seen = {look(folder).digest}
        (folder / "train.py").write_text("other")
        seen.add(look(folder).digest)
        (folder / "train.py").chmod(0o755)
        seen.add(look(folder).digest)
        (folder / "train.py").rename(folder / "main.py")
        seen.add(look(folder).digest)
        assert len(seen) == 4


class TestPieces:
    def test_content(self, folder: Path) -> None:
        (folder / "data/big").write_bytes(bytes(600_000))
        tree = look(folder)
        assert [(number, len(data)) for number, data in pieces(tree, [0, 2])] == [
            (0, 262_144), (0, 262_144), (0, 75_712), (2, 8)
        ]  # fmt: skip

    @pytest.mark.parametrize("content", ["train.qy", "train", "train.py and more"])
    def test_a_file_that_changes_meanwhile(self, folder: Path, content: str) -> None:
        tree = look(folder)
        (folder / "train.py").write_text(content)
        if content.startswith("train.py"):
            assert [data for _, data in pieces(tree, [2])] == [b"train.py"]
        else:
            with pytest.raises(RequestError, match=r"train\.py was changed while it was copied"):
                list(pieces(tree, [2]))

    def test_links_are_links(self, folder: Path) -> None:
        (folder / "link").symlink_to("train.py")
        assert ("link", 0, 0, "train.py") in look(folder).entries
