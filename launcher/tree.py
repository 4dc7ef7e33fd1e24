"""The working tree, as it is copied to hosts that do not share it: which files, and what they hold."""

from __future__ import annotations

import hashlib
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from launcher.agent.trees import Entry

# More is data, or somebody's home directory.
_MOST_FILES = 50_000
_MOST_BYTES = 4 << 30
_PIECE = 1 << 18
# Where there is no git to say what belongs to a program.
_NO_PROGRAM = ("__pycache__", "node_modules", ".*")


class Tree(NamedTuple):
    """A working tree.

    Attributes:
        name: what its folder on a host is called: the name of its directory, and its digest.
        digest: SHA-256 of all entries.
        commit: what git has checked out there; empty where it is not there, or has nothing.
        dirty: whether any file differs from that.
    """

    folder: str
    name: str
    digest: str
    entries: tuple[Entry, ...]
    commit: str
    dirty: bool

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(size for _, _, size, _ in self.entries)

    @property
    def words(self) -> str:
        """What is copied, in one line."""
        changed = " with changes" if self.dirty else ""
        of = f", commit {self.commit[:10]}{changed}" if self.commit else ""
        return f"{len(self.entries):,} files ({self.size / 1e6:,.1f} MB) of {Path(self.folder).name} on each host{of}"

    def as_json(self) -> dict[str, object]:
        """What is kept of it with the run."""
        counts = {"files": len(self.entries), "bytes": self.size}
        return {"digest": self.digest, "commit": self.commit or None, "dirty": self.dirty, **counts}


def read(folder: str, patterns: Sequence[str], without: Sequence[str]) -> Tree:
    """The working tree in a folder.

    Args:
        patterns: globs of the files that belong to it, ``**`` for any folders; none for those that git tracks or would
            track, and without git for all but hidden ones and what programs leave behind.
        without: folders that do not belong to it, whatever the patterns say.

    Raises:
        RequestError: it cannot be read, there is nothing in it, or there is too much.
    """
    inside = _git(folder, "rev-parse", "--is-inside-work-tree") is not None
    paths = _named(folder, patterns) if patterns else _tracked(folder) if inside else _all(folder)
    outside = [os.path.relpath(each, folder) for each in without]
    chosen = sorted({path for path in paths if not _below(path, outside)})
    if not chosen:
        raise RequestError(f"there is nothing to copy to the hosts in {folder}", "name files with sync, as globs")
    if len(chosen) > _MOST_FILES:
        raise RequestError(f"{folder} holds {len(chosen):,} files", "name those of the program with sync, as globs")
    try:
        # Before any of it is read: it may be somebody's data.
        size = sum(Path(folder, path).lstat().st_size for path in chosen)
        if size > _MOST_BYTES:
            raise RequestError(f"{folder} holds {size / 2**30:.1f} GiB", "name the program's files with sync, as globs")
        entries = tuple(entry for path in chosen for entry in _entry(folder, path))
    except OSError as error:
        raise RequestError(f"cannot read {error.filename}: {error.strerror}") from None
    digest = hashlib.sha256(repr(entries).encode(errors="surrogateescape")).hexdigest()
    commit = (_git(folder, "rev-parse", "HEAD") or "").strip()
    dirty = inside and bool(_git(folder, "status", "--porcelain", "--", "."))
    return Tree(folder, f"{Path(folder).name or 'root'}-{digest[:12]}", digest, entries, commit, dirty)


def pieces(tree: Tree, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """The content of some entries, a piece at a time, each with the number of its entry.

    Raises:
        RequestError: a file has changed since the tree was read.
    """
    for number in numbers:
        path, _, size, digest = tree.entries[number]
        seen, left = hashlib.sha256(), size
        with Path(tree.folder, path).open("rb") as file:
            while left and (data := file.read(min(_PIECE, left))):
                seen.update(data)
                left -= len(data)
                yield number, data
        if left or seen.hexdigest() != digest:
            raise RequestError(f"{path} was changed while it was copied", "start the run again")


def _tracked(folder: str) -> list[str]:
    said = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or ""
    # What is tracked and deleted is listed, too.
    return [path for path in said.split("\0") if path and os.path.lexists(Path(folder, path))]


def _all(folder: str) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _is_program(name) and not Path(where, name, "pyvenv.cfg").exists()]
        for name in filter(_is_program, files):
            yield os.path.relpath(Path(where, name), folder)


def _is_program(name: str) -> bool:
    return not any(fnmatch(name, pattern) for pattern in _NO_PROGRAM)


def _named(folder: str, patterns: Sequence[str]) -> Iterator[str]:
    for pattern in patterns:
        for path in Path(folder).glob(pattern):
            if path.is_dir() and not path.is_symlink():
                yield from (str(each.relative_to(folder)) for each in path.rglob("*") if not each.is_dir())
            else:
                yield str(path.relative_to(folder))


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _entry(folder: str, path: str) -> Iterator[Entry]:
    whole = Path(folder, path)
    if whole.is_symlink():
        yield (path, 0, 0, str(whole.readlink()))
    elif whole.is_file():  # no submodule, pipe or socket
        status = whole.stat()
        with whole.open("rb") as file:
            yield (path, status.st_mode & 0o777, status.st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _git(folder: str, *command: str) -> str | None:
    """What git says of the folder; None where it is not there or has nothing to say."""
    import subprocess

    try:
        done = subprocess.run(["git", "-C", folder, *command], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None
