"""Python tracebacks in the tasks' lines: what one task has shown, the others need not show again. Pure.

A mistake in a script is made by every worker, and N tracebacks of the same words hide the one that differs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_HEAD = b"Traceback (most recent call last):"
# How a script that cannot be compiled is told of: without a head. Lines of a stack dump go on after the number.
_PLACE = b'  File "'
_SYNTAX_ERROR = re.compile(rb'  File ".*", line \d+')
# What Python writes between the tracebacks of a chain.
_LINKS = (
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
)
# How much of a chunk is searched for the head of one. All of a flood would cost a tenth of its time: a traceback in the
# midst of one is shown as it comes. Without a head one is the first thing that a program says.
_NEAR, _FAR = 1 << 10, 8 << 10
# A longer one is shown as it comes; Python itself shortens a recursion's.
_LONGEST = 64 << 10
# Bytes of tracebacks that are remembered.
_MEMORY = 4 << 20


class Tracebacks:
    """Passes lines on, but for the tracebacks that another task has shown before; in their place stands one line.

    A traceback is held until its last line, the exception's, is there. So those of tasks that fail at the same time do not
    mix either. Lines have no line ends here.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._owners: dict[bytes, int] = {}
        self._room = _MEMORY
        self._held: dict[int, list[bytes]] = {}
        # After a traceback that was left out: the lines that belong to its chain if another traceback follows.
        self._links: dict[int, list[bytes]] = {}

    def concern(self, task: int, partial: bytes, data: bytes) -> bool:
        """Whether the task's next ``data``, after an unfinished line, needs a look at its lines."""
        if task in self._held or task in self._links:
            return True
        seam = partial[-len(_HEAD) :] + data[:_NEAR]
        return _PLACE in seam or _HEAD in seam or _HEAD in data[-_FAR:]

    def fold(self, task: int, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what to show now, given the task's next lines."""
        for line in lines:
            if task in self._held:
                yield from self._continue(task, line)
            elif line == _HEAD or _SYNTAX_ERROR.fullmatch(line):
                self._held[task] = [line]
            elif task in self._links and (not line or line in _LINKS):
                self._links[task].append(line)
            else:
                yield from self._links.pop(task, ())
                yield line

    def rest(self, task: int) -> Iterator[bytes]:
        """Yield what is still held of a task that writes no more."""
        yield from self._links.pop(task, ())
        yield from self._held.pop(task, ())

    def _continue(self, task: int, line: bytes) -> Iterator[bytes]:
        held = self._held[task]
        held.append(line)
        if line.startswith((b" ", b"\t")):
            if sum(map(len, held)) > _LONGEST:
                yield from self.rest(task)
            return
        links = self._links.pop(task, [])
        first = self._first_to_show(self._held.pop(task), task)
        if not (first != task and any(links)):
            yield from links
        if first == task:
            yield from held
            return
        self._links[task] = []
        if not any(links):
            yield f"(the same traceback as {self._names[first]}'s; the log file has it)".encode()

    def _first_to_show(self, lines: list[bytes], task: int) -> int:
        text = b"\n".join(lines)
        if text not in self._owners and len(text) <= self._room:
            self._room -= len(text)
            self._owners[text] = task
        return self._owners.get(text, task)
