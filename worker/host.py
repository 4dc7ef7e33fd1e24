"""What is to be done once on a host, however many workers are there."""

from __future__ import annotations

import fcntl
import getpass
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Let the workers of this host, and of this user, do something one after the other: the first does it, the others
    find it done. The kernel lets go of the lock when its holder dies, so nobody waits for a worker that was killed.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", f"tflaunch-{getpass.getuser()}-{name}")
    path = Path(tempfile.gettempdir()) / f"{safe}.lock"
    # Somebody else's file of that name must not be followed, nor written to.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
