"""Where tasks are, in words: from what they wrote of their threads, or else from the kernel's word for them. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from launcher.dump import Dump
from launcher.names import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from launcher.dump import Frame

# What is no letter of proc(5). Its agent has not started it yet; or waits with that until TensorFlow is imported, from which
# it is to be forked; or does not answer.
UNSTARTED, UNFORKED, SILENT = "unstarted", "unforked", "silent"

_WIDEST = 400
# As many of the program's own frames are shown; the innermost say most.
_FRAMES = 3
_DOWNLOAD = re.compile(
    r".*/(urllib/request|http/client|urllib3/\w+|requests/\w+|utils/file_utils|tensorflow_datasets/core/download/\w+)\.py$"
)
# The last of Python before TensorFlow 2.21 connects to a cluster.
_CONNECTS = {"ensure_initialized", "set_server_def", "update_server_def"}
_CONTEXT = "/tensorflow/python/eager/context.py"
_STATES = {
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "D": "waiting for a disk, or a device",
    "Z": "gone",
    "X": "gone",
    "": "gone",
    UNSTARTED: "not started yet",
    UNFORKED: "waiting for the import of TensorFlow",
    SILENT: "on a host that does not answer",
}
_NOTHING = "told nothing (no Python worker, or a very busy one)"


class Answer(NamedTuple):
    """What one task told.

    Attributes:
        label: the task's name, such as ``worker 0``.
        state: the kernel's letter for its main process (proc(5)), empty when that is gone; or UNSTARTED, UNFORKED, SILENT.
        text: its stacks as faulthandler writes them; empty when it told none.
    """

    label: str
    state: str
    text: str


class Report(NamedTuple):
    """Where tasks were.

    Attributes:
        lines: for a person, tasks at the same place together.
        full: all stacks of all threads, each of those that are the same once.
    """

    lines: tuple[str, ...]
    full: str

    def shown(self) -> list[str]:
        """The lines as a part of a longer story."""
        return ["where everybody was (stacks.txt has all of it):", *(f"  {line[:_WIDEST]}" for line in self.lines)]


def report(answers: Sequence[Answer]) -> Report:
    """Who is where."""
    lines = tuple(f"{names} {place}" for names, place in _grouped(answers, _place))
    return Report(lines, "\n".join(f"{names}:\n{text}\n" for names, text in _grouped(answers, _whole)))


def doing(answers: Sequence[Answer]) -> str:
    """What tasks are about, in a few words: ``importing tensorflow``; with their names where it is not the same."""
    groups = list(_grouped(answers, _occupation))
    return groups[0][1] if len(groups) == 1 else "; ".join(f"{names} {phrase}" for names, phrase in groups)


def _grouped(answers: Iterable[Answer], say: Callable[[Answer], str]) -> Iterator[tuple[str, str]]:
    groups: dict[str, list[str]] = {}
    for answer in answers:
        groups.setdefault(say(answer), []).append(answer.label)
    for said, labels in groups.items():
        yield together(labels), said


def _state(answer: Answer) -> str:
    return _STATES.get(answer.state, _NOTHING)


def _place(answer: Answer) -> str:
    dump = Dump(answer.text)
    if dump.main is None:
        return _state(answer)
    ways = Counter(_way(dump, one.frames, own[:1]) for one in dump.others if (own := dump.own_of(one)))
    threads = [f"{'a thread' if count == 1 else f'{count} threads'} {way}" for way, count in ways.items()]
    return "; ".join([_way(dump, dump.main.frames, dump.own[:_FRAMES], dump.imports), *threads])


def _way(dump: Dump, frames: Sequence[Frame], own: Sequence[Frame], imports: str = "") -> str:
    """How a thread has come to where it is: what it has called last, and the program's own frames."""
    if imports:
        return " <- ".join([f"importing {imports}", *(_call(dump, frame) for frame in own)])
    if not frames:
        return "starting"
    shown = list(own or frames[:_FRAMES])
    if shown[0] is not frames[0]:
        shown.insert(0, frames[0])
    first = "at" if shown[0].function == "<module>" else "in"
    return f"{first} {' <- '.join(_call(dump, frame) for frame in shown)}"


def _call(dump: Dump, frame: Frame) -> str:
    """A frame in words: ``step (train.py:41)``."""
    place = f"{dump.short(frame.file)}:{frame.line}"
    return place if frame.function == "<module>" else f"{frame.function} ({place})"


def _whole(answer: Answer) -> str:
    """Without the threads' addresses, which differ where nothing else does."""
    dump = Dump(answer.text)
    if dump.main is None:
        return f"  {_state(answer)}"
    lines = ["main thread (most recent call first):", *dump.main.lines]
    for thread in dump.others:
        lines += ["thread (most recent call first):", *thread.lines]
    return "\n".join(f"  {line}" for line in lines)


def _occupation(answer: Answer) -> str:
    dump = Dump(answer.text)
    if dump.main is None:
        return _state(answer)
    if any(frame.function in _CONNECTS and frame.file.endswith(_CONTEXT) for frame in dump.foreign):
        return "waiting for peers"
    if dump.imports:
        return f"importing {dump.imports}"
    frame = next(iter([*dump.own, *dump.main.frames]), None)
    if frame is None:
        return "starting"
    place = f"{dump.short(frame.file)}:{frame.line}"
    where = f"at {place}" if frame.function == "<module>" else f"in {frame.function}() of {place}"
    return f"downloading {where}" if any(_DOWNLOAD.match(one.file) for one in dump.foreign) else where
