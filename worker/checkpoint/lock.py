"""One run, one checkpoint directory: a lock that the kernel gives back when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from pathlib import Path

FILE = "lock"
# A file system without locks: some network mounts.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class Held(Exception):
    """Somebody else holds the lock; the text says who."""


class Lock:
    """Held from ``take`` to ``release``, or to the end of the process.

    It is flock on a file of the directory, so it holds on this machine, and on others as far as their shared file system
    carries locks between them, as NFS 4 does. The file stays: to remove it would let two holders have two files.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._fd = -1

    def take(self) -> bool:
        """Give False where the file system has no locks.

        Raises:
            Held: another process has it.
            OSError: the file cannot be made.
        """
        # A program started from here does not inherit the descriptor, and a fork closes it: no orphan holds the lock.
        os.register_at_fork(after_in_child=self._close)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.pread(self._fd, 4096, 0))
            self._close()
            raise Held(holder) from None
        except OSError as error:
            self._close()
            if error.errno in _NO_LOCKS:
                return False
            raise
        self._sign()
        return True

    def release(self) -> None:
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _sign(self) -> None:
        """Only for people to read, so a full disk is no reason to stop."""
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "run": os.environ.get("TFLAUNCH_RUN", "")}
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(holder).encode() + b"\n", 0)
        except OSError:
            return


def _holder(text: bytes) -> str:
    try:
        holder = json.loads(text)
        run = f"run {holder['run']}, " if holder["run"] else ""
        return f"{run}process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
