"""Where tasks are, in words: from what Python's faulthandler wrote of their threads, and the kernel's word for those that
wrote nothing, to lines for a person and to a whole text for a file. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from launcher.names import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# What is no letter of proc(5): its agent has not started it yet; its agent has not answered.
UNSTARTED, SILENT = "unstarted", "silent"

# As many of the program's own frames are shown; the innermost say most.
_FRAMES = 3
_HEAD = re.compile(r"(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\S+?),? in (.*)')
_BOOT = "/worker/start.py"
# What lies beneath the program's first frame in a process that boot.py has started.
_BENEATH = re.compile(r"/worker/(start|boot|call)\.py$|^<frozen runpy>$|/lib/python3\.\d+/runpy\.py$")
_LIBRARY = re.compile(r".*/(?:(?:site|dist)-packages|lib/python3\.\d+)/")
_FOREIGN = re.compile(rf"<|{_LIBRARY.pattern}|.*__autograph_generated_file")
_IMPORT = re.compile(r"<frozen importlib\._bootstrap|.*/lib/python3\.\d+/importlib/")
_DOWNLOAD = re.compile(
    r".*/(urllib/request|http/client|urllib3/\w+|requests/\w+|utils/file_utils|tensorflow_datasets/core/download/\w+)\.py$"
)
# In tensorflow/python/eager/context.py, the last of Python before TensorFlow 2.21 connects to a cluster.
_CONNECTS = {"ensure_initialized", "set_server_def", "update_server_def"}
_STATES = {
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "D": "waiting for a disk, or a device",
    "Z": "gone",
    "X": "gone",
    "": "gone",
    UNSTARTED: "not started yet",
    SILENT: "on a host that does not answer",
}
_NOTHING = "told nothing (no Python worker)"


class Answer(NamedTuple):
    """What one task told.

    Attributes:
        label: the task's name, such as ``worker 0``.
        state: the kernel's letter for its main process (proc(5)), empty when that is gone; or UNSTARTED, or SILENT.
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
        return ["where everybody was (stacks.txt has all of it):", *(f"  {line}" for line in self.lines)]


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


class _Frame(NamedTuple):
    file: str
    line: str
    function: str


class _Program:
    """A process as its stacks show it: which frames are the program's own, and how they are called.

    Attributes:
        main: the main thread's frames, the innermost first, without those beneath the program's.
        others: those of the other threads.
    """

    def __init__(self, text: str) -> None:
        threads = [tuple(_frames(block)) for block in _blocks(text)]
        # Python lists the newest thread first.
        main = next((one for one in threads if one and one[-1].file.endswith(_BOOT)), threads[-1])
        self.others = [one for one in threads if one is not main]
        self.main = _above_boot(main)
        self._package = main[-1].file.removesuffix("start.py") if self.main != main else ""
        self._home = self.main[-1].file.rpartition("/")[0] + "/" if self.main else ""

    def own(self, frames: Sequence[_Frame]) -> list[_Frame]:
        """The frames of the program itself, which is a library's or this package's where one of these was run."""
        return [frame for frame in frames if self._is_own(frame.file)]

    def call(self, frame: _Frame) -> str:
        """A frame in words: ``step (train.py:41)``."""
        place = f"{self.short(frame.file)}:{frame.line}"
        return place if frame.function == "<module>" else f"{frame.function} ({place})"

    def short(self, file: str) -> str:
        """A file's name as the program's author would say it."""
        if self._package and file.startswith(self._package):
            return "worker/" + file.removeprefix(self._package)
        if self._home and file.startswith(self._home):
            return file.removeprefix(self._home)
        if library := _LIBRARY.match(file):
            return file[library.end() :]
        return file.rpartition("/")[2]

    def _is_own(self, file: str) -> bool:
        if self._package and file.startswith(self._package):
            return self._home.startswith(self._package)
        return not _FOREIGN.match(file) or bool(_FOREIGN.match(self._home) and file.startswith(self._home))


def _blocks(text: str) -> Iterator[list[str]]:
    """Each thread's lines, without its head."""
    block: list[str] | None = None
    for line in text.splitlines():
        if _HEAD.fullmatch(line):
            if block is not None:
                yield block
            block = []
        elif block is not None and line.startswith("  "):
            block.append(line)
    if block is not None:
        yield block


def _frames(block: Iterable[str]) -> Iterator[_Frame]:
    for line in block:
        if found := _FRAME.fullmatch(line):
            yield _Frame(*found.groups())


def _above_boot(frames: tuple[_Frame, ...]) -> tuple[_Frame, ...]:
    """The frames of a main thread without those beneath the program's first."""
    count = len(frames)
    if frames and frames[-1].file.endswith(_BOOT):
        while count and _BENEATH.search(frames[count - 1].file):
            count -= 1
    return frames[:count]


def _state(answer: Answer) -> str:
    return _STATES.get(answer.state, _NOTHING)


def _place(answer: Answer) -> str:
    if not any(_blocks(answer.text)):
        return _state(answer)
    program = _Program(answer.text)
    elsewhere: dict[str, int] = {}
    for frames in program.others:
        if own := program.own(frames):
            way = _way(program, frames, own[:1])
            elsewhere[way] = elsewhere.get(way, 0) + 1
    threads = [f"{'a thread' if count == 1 else f'{count} threads'} {way}" for way, count in elsewhere.items()]
    own = program.own(program.main)[:_FRAMES]
    return "; ".join([_way(program, program.main, own), *threads])


def _way(program: _Program, frames: Sequence[_Frame], own: Sequence[_Frame]) -> str:
    """How the program has come to where it is: a library's innermost frame, and then its own."""
    shown = list(own or frames[:_FRAMES])
    if not shown:
        return "starting"
    if shown[0] is not frames[0]:
        shown.insert(0, frames[0])
    first = "at" if shown[0].function == "<module>" else "in"
    return f"{first} {' <- '.join(map(program.call, shown))}"


def _whole(answer: Answer) -> str:
    """Without the threads' addresses, which differ where nothing else does."""
    blocks = list(_blocks(answer.text))
    if not any(blocks):
        return f"  {_state(answer)}"
    main = next((one for one in blocks if one and _BOOT in one[-1]), blocks[-1])
    frames = tuple(_frames(main))
    beneath = len(frames) - len(_above_boot(frames))
    threads = [("main thread", main[: len(main) - beneath]), *(("thread", one) for one in blocks if one is not main)]
    return "\n".join(f"  {line}" for name, block in threads for line in (f"{name} (most recent call first):", *block))


def _occupation(answer: Answer) -> str:
    if not any(_blocks(answer.text)):
        return _state(answer)
    program = _Program(answer.text)
    own = program.own(program.main)
    foreign = program.main[: program.main.index(own[0])] if own else program.main
    if any(frame.function in _CONNECTS and frame.file.endswith("/eager/context.py") for frame in foreign):
        return "waiting for peers"
    if module := _imported(program, foreign):
        return f"importing {module}"
    frame = own[0] if own else next(iter(foreign), None)
    if frame is None:
        return "starting"
    place = f"{program.short(frame.file)}:{frame.line}"
    where = f"at {place}" if frame.function == "<module>" else f"in {frame.function}() of {place}"
    return f"downloading {where}" if any(_DOWNLOAD.match(one.file) for one in foreign) else where


def _imported(program: _Program, foreign: Sequence[_Frame]) -> str:
    """What the program's own innermost frame imports; empty when it does not."""
    outwards = list(reversed(foreign))
    start = next((at for at, frame in enumerate(outwards) if _IMPORT.match(frame.file)), None)
    if start is None:
        return ""
    module = next((frame for frame in outwards[start:] if not _IMPORT.match(frame.file)), None)
    return "a module" if module is None else program.short(module.file).partition("/")[0].removesuffix(".py")
