"""The program's files on a host: a folder for each content, filled with what is missing from it; and results on their way back.

Each step is short, so that the agent can do other things between two of them. Nothing outside of the folder is written, and
nothing at all is deleted: what the workers have made there is there the next time.
"""

from __future__ import annotations

import glob
import hashlib
import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PIECE = 1 << 18
# How many earlier contents are looked at for files that are in this one, too.
_EARLIER = 3

# What stands for a file: its path below the folder, its permissions, its size, and the SHA-256 of its content; of a
# symbolic link, the permissions are 0 and the last is where it points to.
Entry = tuple[str, int, int, str]


def base() -> str:
    """Where the folders are."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tflaunch", "code")


class Tree:
    """One content that is to be in a folder here.

    Attributes:
        folder: where.
        lacking: the numbers of the entries that have to be sent, once ``look`` is through.
    """

    def __init__(self, name: str, entries: Sequence[Entry]) -> None:
        self.folder = os.path.join(base(), name)
        self.lacking: list[int] = []
        self._entries = entries
        self._received: dict[int, int] = {}

    def look(self) -> Iterator[None]:
        """Find out what is lacking, and take from earlier folders what they have of it; a step for each entry.

        Raises:
            OSError: there is no room, or no permission.
        """
        earlier = self._earlier()
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        os.utime(self.folder)  # used today (leftovers.py)
        for number, entry in enumerate(self._entries):
            path, mode, size, digest = entry
            target = self._path(path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if not mode:
                _link(digest, target)
            elif not _holds(target, size, digest) and not self._taken(entry, earlier):
                if size:
                    self.lacking.append(number)
                else:
                    _write(target, b"", mode)
            elif mode != os.stat(target).st_mode & 0o777:
                os.chmod(target, mode)
            yield

    def receive(self, number: int, data: bytes) -> None:
        """Take in the next piece of the content of an entry.

        Raises:
            OSError: there is no room.
        """
        path, mode, size, _ = self._entries[number]
        partial = self._path(path) + f".tflaunch-{os.getpid()}"
        so_far = self._received.get(number, 0)
        with open(partial, "ab" if so_far else "wb") as file:
            file.write(data)
        self._received[number] = so_far + len(data)
        if self._received[number] >= size:
            os.chmod(partial, mode)
            os.replace(partial, self._path(path))
            self.lacking.remove(number)

    def _path(self, path: str) -> str:
        return os.path.join(self.folder, path)

    def _earlier(self) -> list[str]:
        with suppress(OSError):
            folders = [entry.path for entry in os.scandir(base()) if entry.is_dir() and entry.path != self.folder]
            return sorted(folders, key=os.path.getmtime, reverse=True)[:_EARLIER]
        return []

    def _taken(self, entry: Entry, earlier: Sequence[str]) -> bool:
        path, mode, size, digest = entry
        for folder in earlier:
            with suppress(OSError):
                if os.path.getsize(os.path.join(folder, path)) == size:
                    with open(os.path.join(folder, path), "rb") as file:
                        content = file.read()
                    if hashlib.sha256(content).hexdigest() == digest:
                        _write(self._path(path), content, mode)
                        return True
        return False


def _holds(path: str, size: int, digest: str) -> bool:
    with suppress(OSError):
        if not os.path.islink(path) and os.path.getsize(path) == size:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == digest
    return False


def _write(target: str, content: bytes, mode: int) -> None:
    partial = target + f".tflaunch-{os.getpid()}"
    with open(partial, "wb") as file:
        file.write(content)
    os.chmod(partial, mode)
    os.replace(partial, target)


def _link(to: str, target: str) -> None:
    with suppress(OSError):
        if os.readlink(target) == to:
            return
    partial = target + f".tflaunch-{os.getpid()}"
    os.symlink(to, partial)
    os.replace(partial, target)


def found(folder: str, patterns: Sequence[str]) -> list[Entry]:
    """The files below the folder that the patterns name; a pattern that names a folder stands for all that is in it."""
    paths: dict[str, None] = {}
    for pattern in patterns:
        for path in glob.glob(os.path.join(glob.escape(folder), pattern), recursive=True, include_hidden=True):
            below = glob.glob(os.path.join(glob.escape(path), "**"), recursive=True, include_hidden=True)
            paths |= dict.fromkeys(below if os.path.isdir(path) else [path])
    files = sorted(path for path in paths if os.path.isfile(path) and not os.path.islink(path))
    return [(os.path.relpath(path, folder), os.stat(path).st_mode & 0o777, os.path.getsize(path), "") for path in files]


def pieces(folder: str, entries: Sequence[Entry]) -> Iterator[tuple[int, bytes]]:
    """The content of files, a piece at a time, each with the number of its entry; no more than an entry's size."""
    for number, (path, _, size, _) in enumerate(entries):
        with open(os.path.join(folder, path), "rb") as file:
            left = size
            while left and (data := file.read(min(_PIECE, left))):
                left -= len(data)
                yield number, data
            if left:
                # It has become shorter since: what was promised is filled up, rather than never being whole.
                yield number, bytes(left)
