"""Two processes that watch each other, so that whichever is killed, nothing of either is left behind.

The guard starts the loop and waits. When the loop ends, its orphans become the guard's children, and the guard ends them.
When the guard ends, the kernel signals the loop, which ends its workers and itself. A loop that stands still, because
somebody has stopped it, is heard of by nobody but the guard, who gives it up after a while.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

from . import kernel, stacks, strays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# How long the last descendants may take to die.
_FAREWELL = 5.0
# A loop that a signal has stopped is given up after so many seconds, as a worker is.
_STOPPED = 10.0


def stand(loop: Callable[[], None]) -> None:
    """Run ``loop`` in a child and guard it. Never returns: exits with the loop's status, or 128 + its signal, be it one that stopped it."""
    kernel.adopt_orphans()
    guard = os.getpid()
    child = os.fork()
    # Neither has anything that the interpreter would have to tidy up, and the launcher waits for both.
    if child:
        os._exit(_wait(child))
    status = 1
    try:
        kernel.adopt_orphans()
        kernel.die_with_parent(signal.SIGTERM, guard)
        loop()
        status = 0
    except Exception:  # noqa: BLE001 - whatever it was, it is told on stderr, which is the agent's log
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _wait(child: int) -> int:
    # Whoever means the agent may well hit its first process: the loop is to hear of it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        # The launcher must see EOF when the loop goes, and the loop must see it when the launcher does.
        os.dup2(null, descriptor)
    code = _outlive(child)
    end_descendants()
    return 128 - code if code < 0 else code


def _outlive(loop: int) -> int:
    """Wait for the loop's end; returns its exit status, or minus the signal that ended it, or stopped it for good."""
    given_up = False

    def give_up(*_: object) -> None:
        nonlocal given_up
        if stacks.state_of(loop) == "T":
            given_up = True
            os.kill(loop, signal.SIGKILL)

    signal.signal(signal.SIGALRM, give_up)
    while True:
        pid, status = os.waitpid(-1, os.WUNTRACED | os.WCONTINUED)
        if pid != loop:
            continue
        if os.WIFSTOPPED(status):
            told = f"a signal has stopped the agent; it is ended unless it goes on within {_STOPPED:g} s\n"
            with suppress(BrokenPipeError):  # the connection that it was for may be lost
                os.write(2, told.encode())
            signal.setitimer(signal.ITIMER_REAL, _STOPPED)
        elif os.WIFCONTINUED(status):
            signal.setitimer(signal.ITIMER_REAL, 0)
        else:
            return -signal.SIGSTOP if given_up else os.waitstatus_to_exitcode(status)


def end_descendants() -> None:
    """Kill and reap until no child is left; each one that dies hands over its own children."""
    deadline = time.monotonic() + _FAREWELL
    while time.monotonic() < deadline and strays.end_all():
        # A killed child is gone in well under a millisecond, unless it sits in the kernel waiting for a disk.
        if zombie() is None:
            time.sleep(0.002)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def zombie() -> int | None:
    """The id of a child that has ended and is not reaped yet, so that its group's id is still taken."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def stop_or_go() -> tuple[int, bool] | None:
    """A child that a signal has stopped (True) or let go on (False) since the last call; None when there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if found is None else (found.si_pid, found.si_code != os.CLD_CONTINUED)
