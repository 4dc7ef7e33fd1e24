"""What ends a process together with this one, even when this one is killed and nobody is left to see to it.

A pipe has both of its ends here, and the kernel is told to kill the other process when there is something to say about either. It
says so of one end when the other is closed, which nobody does but the kernel itself, as this process ends: in which order is its
own business. Source: fcntl(2), F_SETOWN and F_SETSIG.

A process could ask for the same itself (prctl(2), PR_SET_PDEATHSIG), but only between fork and exec, and what Python does there
takes 2 ms of CPU (spawn.py).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from . import kernel


class Leash:
    """One process's."""

    def __init__(self, pid: int) -> None:
        self._ends: tuple[int, ...] = ()
        # Where there are no more descriptors, or no such thing, the guard is the only one to see to it.
        with suppress(OSError):
            self._ends = os.pipe()
            for end in self._ends:
                kernel.signal_about(end, pid, signal.SIGKILL)

    def loosen(self) -> None:
        """Let go of it, which has ended: this would kill it."""
        for end in self._ends:
            os.close(end)
        self._ends = ()
