"""What a person sees: the workers' lines behind a short prefix, and a few lines of our own.

It may lag behind, and skip (it says how much); it never makes anybody wait, and the log files lose nothing.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from contextlib import suppress
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Literal

from launcher.agent.kernel import widen
from launcher.tracebacks import Tracebacks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.outcome import Outcome
    from launcher.plan import Plan
    from launcher.reception import Reception

Output = Literal["all", "chief", "failed", "none"]

# Lines waiting for a slow terminal or pipe; beyond it whole chunks are skipped.
_BACKLOG = 32 << 20
# When so much waits, the reader is given a moment: one that keeps up on the whole then costs no memory for being late at times.
_MUCH = 1 << 20
# What holding a piece costs beside its bytes: tiny lines on a frozen terminal would take a hundred times their length.
_PIECE = 512
# A line this long is shown in pieces.
_LONGEST_LINE = 16 << 20
# With ``--output failed``: as much of the end of each failed task's log.
_REPLAY = 1 << 20
# Pieces to a writev, which takes at most 1024 (IOV_MAX).
_BATCH = 64
# The end of a run waits for a console only as long as that still takes something.
_STALLED = 2.0
_COLOURS = (36, 33, 32, 35, 34, 31)


class Sink:
    """A descriptor that is written to without ever blocking, and without making others' writes non-blocking.

    O_NONBLOCK belongs to the open file, which the shell and its other children share: so a terminal or pipe is opened
    anew through /proc. Where that is refused, pieces are small enough for what ``select`` calls writable (PIPE_BUF).
    """

    def __init__(self, descriptor: int) -> None:
        self.closed = False
        self._piece: int | None = None
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:  # whoever embeds us has closed it
            self.closed, self._own, self.descriptor = True, False, descriptor
            return
        self._own = not stat.S_ISREG(mode)
        self.descriptor = self._reopen(descriptor) if self._own else descriptor
        if stat.S_ISFIFO(mode):
            widen(self.descriptor)

    def write(self, pieces: Sequence[memoryview]) -> int:
        """Write what fits now; returns how many bytes. A reader that is gone swallows everything."""
        if self.closed:
            return sum(map(len, pieces))
        if self._piece is not None and not _is_writable(self.descriptor):
            return 0
        try:
            if self._piece is not None:
                return os.write(self.descriptor, pieces[0][: self._piece])
            return os.writev(self.descriptor, pieces)
        except BlockingIOError:
            return 0
        except OSError as error:
            # What a full disk does not take is lost to it, but there may be room again.
            self.closed = error.errno not in {errno.ENOSPC, errno.EDQUOT}
            return sum(map(len, pieces))

    def close(self) -> None:
        """Close what was opened for it; the descriptor it was made from stays open."""
        if self._own:
            os.close(self.descriptor)

    def _reopen(self, descriptor: int) -> int:
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._piece = 512
        return os.dup(descriptor)


class Console:
    """Standard output for the workers' lines, standard error for ours; one queue keeps them in order.

    As a context manager it shows at the end what still waits to be shown, and closes what it opened.

    Attributes:
        audience: is told everything too, whatever of it is shown here, if there is one.
    """

    def __init__(self, output: Output, *, stdout: int = 1, stderr: int = 2) -> None:
        self.audience: Reception | None = None
        self._output = output
        self._out = Sink(stdout)
        self._err = Sink(stderr)
        self._out_colour = _colourful(stdout)
        self.colour = _colourful(stderr)
        self._queue: deque[tuple[Sink, memoryview]] = deque()
        self._pending = 0
        self._skipped = 0
        self._prefixes: dict[int, bytes] = {}
        self._partial: dict[int, bytes] = {}
        self._tracebacks = Tracebacks({})
        self._shown: frozenset[int] = frozenset()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        if self.audience is not None:
            self.audience.close()
        self.drain()
        for sink in (self._out, self._err):
            sink.close()

    def introduce(self, plan: Plan, run_dir: Path) -> None:
        """Say what is about to run, and learn whose lines are to come."""
        if self._output != "none":
            self.say("\n".join([f"{plan.summary} · logs in {run_dir}", *plan.notes]))
        self.follow(plan)

    def follow(self, plan: Plan) -> None:
        """Learn whose lines are to come."""
        self.expect({task.number: task.label for task in plan.tasks}, plan.chief)

    def expect(self, labels: Mapping[int, str], chief: int) -> None:
        """Lines of these tasks are to come."""
        self._partial.clear()
        self._tracebacks = Tracebacks(labels)
        width = max(map(len, labels.values()), default=0)
        for number, label in labels.items():
            prefix = f"{label:<{width}} | "
            if self._out_colour:
                prefix = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{prefix}\x1b[0m"
            self._prefixes[number] = prefix.encode()
        match self._output:
            case "all":
                self._shown = frozenset(labels)
            case "chief":
                self._shown = frozenset({chief})

    @property
    def blocked_on(self) -> int | None:
        """The descriptor that has to become writable before more can be shown."""
        return self._queue[0][0].descriptor if self._queue else None

    def output(self, task: int, data: bytes) -> None:
        """Show what is complete of a task's output; keep the rest of its last line."""
        if self.audience is not None:
            self.audience.output(task, data)
        if task not in self._shown:
            return
        partial = self._partial.pop(task, b"")
        if self._is_plain(task, partial, data):
            self._whole_lines(task, partial, data)
            return
        data = partial + data
        complete, newline, rest = data.rpartition(b"\n")
        if b"\r" in rest:
            # A return at the end stays: it makes what comes next replace this, not follow it.
            rest = _last_state(rest) + rest[len(rest.rstrip(b"\r")) :][:1]
        if len(rest) > _LONGEST_LINE:
            complete, newline, rest = data, b"\n", b""
        if rest:
            self._partial[task] = rest
        if newline:
            self._lines(task, complete)

    def finish(self, task: int) -> None:
        """Show a last line that has no newline."""
        if self.audience is not None:
            self.audience.finish(task)
        self._finish(task)

    def _finish(self, task: int) -> None:
        if rest := self._partial.pop(task, b""):
            self._lines(task, rest)
        if held := list(self._tracebacks.rest(task)):
            self._show(task, b"\n".join(held))

    def say(self, text: str, *, alarm: bool = False) -> None:
        """A line, or several, of our own; an ``alarm`` begins in red where there are colours."""
        if self.audience is not None:
            self.audience.say(text, alarm=alarm)
        self._say(text, alarm=alarm)

    def _say(self, text: str, *, alarm: bool = False) -> None:
        mark = "\x1b[1mtflaunch\x1b[0m  " if self.colour else "tflaunch  "
        lines = text.split("\n")
        if alarm and self.colour:
            lines[0] = f"\x1b[1;31m{lines[0]}\x1b[0m"
        body = mark + lines[0] + "\n" + "".join(f"          {line}\n" for line in lines[1:])
        self._add(self._err, body.encode(errors="replace"))

    def tell(self, outcome: Outcome) -> None:
        """The end of the story. With ``--output failed`` this is where the output of what failed is shown."""
        if self._output == "failed":
            for one in outcome.tasks:
                if one.fate in {"failed", "victim"}:
                    self._replay(one.task.number, one.log)
        if outcome.verdict.status != "ok" or self._output != "none":
            self.say(outcome.story(), alarm=outcome.verdict.status != "ok")

    def end(self, outcome: Mapping[str, Any], *, told: bool) -> None:
        """The run is over; ``told``: ``tell`` is what comes next."""
        if self.audience is not None:
            self.audience.end(outcome, told=told)

    def give_way(self) -> None:
        """Where much waits to be shown, let the reader have a moment, so that one that keeps up misses nothing.

        The moment is short enough that a frozen console costs nobody anything: 100 MB/s still get past it.
        """
        if self._pending > _MUCH:
            import select

            select.select([], [self._queue[0][0].descriptor], [], 0.002)
            self.flush()

    def flush(self) -> bool:
        """Write what can be written now; False when something is left."""
        while self._queue:
            sink = self._queue[0][0]
            batch = self._next_for(sink)
            if not self._drop(sink.write(batch), len(batch)):
                return False
            self._catch_up()
        return True

    def _next_for(self, sink: Sink) -> list[memoryview]:
        return [data for _, data in takewhile(lambda item: item[0] is sink, islice(self._queue, _BATCH))]

    def _drop(self, written: int, pieces: int) -> bool:
        """Forget what was written; False when not all of the ``pieces`` were."""
        self._pending -= written
        for _ in range(pieces):
            sink, data = self._queue[0]
            if written < len(data):
                self._queue[0] = (sink, data[written:])
                return False
            written -= len(data)
            self._pending -= _PIECE
            self._queue.popleft()
        return True

    @property
    def deserted(self) -> bool:
        """Nobody reads standard output any more."""
        return self._out.closed

    def show(self) -> None:
        """Show all that waits to be shown, however long the reader takes."""
        import select

        while not self.flush():
            select.select([], [self._queue[0][0].descriptor], [])

    def drain(self) -> None:
        """At the end: go on as long as the console takes something."""
        import select

        deadline = time.monotonic() + _STALLED
        while not self.flush() and time.monotonic() < deadline:
            before = self._pending
            select.select([], [self._queue[0][0].descriptor], [], 0.2)
            self.flush()
            if self._pending < before:
                deadline = time.monotonic() + _STALLED

    def _is_plain(self, task: int, partial: bytes, data: bytes) -> bool:
        """Whether the lines can be shown without a look at each."""
        return (
            b"\n" in data
            and b"\r" not in data
            and b"\r" not in partial
            and self._pending <= _BACKLOG
            and not self._tracebacks.concern(task, partial, data)
        )

    def _whole_lines(self, task: int, partial: bytes, data: bytes) -> None:
        """What nearly all output is, and the loop's busiest spot: one copy of the data, and none of the lines' ends."""
        prefix = self._prefixes[task]
        if rest := data[data.rindex(b"\n") + 1 :]:
            self._partial[task] = rest
        tagged = data.replace(b"\n", b"\n" + prefix)
        self._add(self._out, prefix + partial)
        self._add(self._out, memoryview(tagged)[: len(tagged) - len(prefix) - len(rest)])

    def _lines(self, task: int, complete: bytes) -> None:
        if self._pending > _BACKLOG:
            self._skipped += complete.count(b"\n") + 1
            return
        lines = [_last_state(line) for line in complete.split(b"\n")]
        if shown := list(self._tracebacks.fold(task, lines)):
            self._show(task, b"\n".join(shown))

    def _show(self, task: int, lines: bytes) -> None:
        prefix = self._prefixes[task]
        self._add(self._out, prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n")

    def _replay(self, task: int, log: Path) -> None:
        with suppress(OSError), log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _REPLAY))
            self._lines(task, file.read().removesuffix(b"\n"))
        self._finish(task)

    def _catch_up(self) -> None:
        if self._skipped and self._pending < _BACKLOG // 2:
            skipped, self._skipped = self._skipped, 0
            self._say(f"the console could not keep up: {skipped} lines skipped here; the log files have them")

    def _add(self, sink: Sink, data: bytes | memoryview) -> None:
        self._pending += len(data) + _PIECE
        self._queue.append((sink, memoryview(data)))


def _last_state(line: bytes) -> bytes:
    """What a terminal would show of a line in which a progress bar went back to the start again and again."""
    return line.rstrip(b"\r").rpartition(b"\r")[2] if b"\r" in line else line


def _is_writable(descriptor: int) -> bool:
    import select

    return bool(select.select([], [descriptor], [], 0)[1])


def _colourful(descriptor: int) -> bool:
    # https://no-color.org
    return os.isatty(descriptor) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
