"""A directory through TensorFlow's file system layer, so that gs:// and others will do; a local one is synced as well."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

import tensorflow as tf

# What a file system can raise: TensorFlow's layer the one kind, Python's own calls the other.
DiskError = (OSError, tf.errors.OpError)


class Disk:
    """Everything in it goes by its path below the directory.

    Attributes:
        local: whether it is on a file system of this machine, where files can be synced, locked and renamed at once.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory.removeprefix("file://")
        self.local = "://" not in self.directory

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def list(self, name: str = "") -> list[str]:
        # Object stores write folders with a slash at the end.
        return [each.rstrip("/") for each in tf.io.gfile.listdir(self.path(name) if name else self.directory)]

    def put(self, name: str, text: str) -> None:
        """Write a small file whole: a reader sees the old one or the new one."""
        path = self.path(name)
        passing = f"{path}.writing" if self.local else path
        with tf.io.gfile.GFile(passing, "w") as file:
            file.write(text)
        if self.local:
            sync(passing)
            tf.io.gfile.rename(passing, path, overwrite=True)
            sync(str(Path(path).parent))

    def get(self, name: str) -> bytes:
        """Read a small file."""
        with tf.io.gfile.GFile(self.path(name), "rb") as file:
            return bytes(file.read())

    def rename(self, name: str, new: str, *, overwrite: bool = False) -> None:
        tf.io.gfile.rename(self.path(name), self.path(new), overwrite)
        self.sync("")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if tf.io.gfile.exists(self.path(name)):
            tf.io.gfile.remove(self.path(name))

    def sync(self, *names: str) -> None:
        """Have files survive a power loss, or the names in a folder."""
        if self.local:
            for name in names:
                sync(self.path(name) if name else self.directory)

    def size(self, name: str) -> int:
        return int(tf.io.gfile.stat(self.path(name)).length)

    def time(self, name: str) -> float:
        """When it was written, in seconds since the epoch."""
        return float(tf.io.gfile.stat(self.path(name)).mtime_nsec / 1e9)

    def checksum(self, name: str) -> int:
        """CRC-32 of a small file."""
        return zlib.crc32(self.get(name))

    def clear(self, name: str) -> None:
        """Remove a folder if it can be done: where it cannot, there is a better reason to tell, and a later time."""
        try:
            if tf.io.gfile.exists(self.path(name)):
                tf.io.gfile.rmtree(self.path(name))
        except DiskError:
            return


def reason(error: BaseException) -> str:
    """One line on what went wrong, the same each time that it does."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # TensorFlow adds the node before, its trace behind, and the path, which may be of a temporary file, to errno's words.
    text = re.sub(r"^\{\{.*?\}\} |( \[Op:\w+\])$", "", str(getattr(error, "message", error)).partition("\n")[0])
    path, _, words = text.rpartition("; ")
    return words if "/" in path else text


def sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
