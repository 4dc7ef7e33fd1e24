"""Where the threads of a worker are: it is asked by a signal, and writes its Python stacks into a file in its memory.

worker/boot.py has offered that, and told the file's descriptor. What does not run, or is no Python worker, writes nothing.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .process import Process

# Ignored by a process that has not made anything else of it, so that nobody suffers from being asked.
SIGNAL = signal.SIGURG
# The name under which the worker made the file: a program that closes all descriptors may get its number for another one.
FILE = "/memfd:tflaunch-stacks"
_POLL = 0.02
# Nothing tells when a dump is complete: it is taken for that when no more has come for this long.
_QUIET = 0.1
_PATIENCE = 2.0
_MOST = 1 << 20


class RollCall:
    """Every worker that lives is asked, at the same moment as far as that goes; ``tell`` takes the answers."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._questions: list[Question] = []

    def begin(self, processes: Iterable[Process]) -> None:
        """Ask these. What is being answered answers this as well."""
        if self._questions:
            return
        self._questions = [Question(process) for process in processes]
        if not self._questions:
            self._tell("called")

    def moments(self) -> Iterator[float]:
        """When to look for answers (monotonic)."""
        return (question.next for question in self._questions)

    def on_time(self) -> None:
        """Tell the answers that have come; and when those were all."""
        answered = [question for question in self._questions if question.answered()]
        for question in answered:
            self._questions.remove(question)
            self._tell("stacks", task=question.number, state=question.state, text=question.text)
        if answered and not self._questions:
            self._tell("called")


class Question:
    """A worker that has been asked. ``answered`` is to be called now and then.

    Attributes:
        next: when to look again (monotonic).
        state: what the kernel says that its main process is doing (proc(5): R, S, D, T ...); empty when it is gone.
        text: what it has written so far.
    """

    def __init__(self, process: Process) -> None:
        self.number = process.number
        self.text = ""
        self._process = process
        self.state = _living(process.pid)
        self._changed = self._asked = self.next = time.monotonic()
        self._file = _open(process.pid, process.stacks) if self.state not in {"", "T", "t"} else -1
        self._size = 0
        if self._file >= 0:
            # However often it is asked, its memory holds one answer. Its own end of the file stays where it was, and
            # what lies before that becomes a hole, which takes none.
            os.ftruncate(self._file, 0)
            with suppress(ProcessLookupError):
                os.kill(process.pid, SIGNAL)

    def answered(self) -> bool:
        """Whether there is nothing more to come; ``text`` then is whole."""
        if self._file < 0:
            return True
        now = time.monotonic()
        size = os.fstat(self._file).st_size
        if size != self._size:
            self._size, self._changed = size, now
        complete = self._size > 0 and now - self._changed >= _QUIET
        if not complete and self._process.ended is None and now - self._asked < _PATIENCE:
            self.next = now + _POLL
            return False
        self.text = _content(self._file, self._size)
        os.close(self._file)
        self._file = -1
        if not self.text:  # something has kept it from answering since
            self.state = _living(self._process.pid) if self._process.ended is None else ""
        return True


def state_of(pid: int) -> str:
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0].decode()
    return ""


def _living(pid: int) -> str:
    """The same; of one that only waits to be reaped, nothing."""
    return state_of(pid).replace("Z", "")


def _content(file: int, size: int) -> str:
    with suppress(OSError):  # nothing but a hole, which ends with a page
        start = max(os.lseek(file, 0, os.SEEK_DATA), size - _MOST)
        return os.pread(file, size - start, start).lstrip(b"\0").decode(errors="replace")
    return ""


def _open(pid: int, descriptor: int) -> int:
    path = f"/proc/{pid}/fd/{descriptor}"
    with suppress(OSError):
        if os.readlink(path).startswith(FILE):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return -1
