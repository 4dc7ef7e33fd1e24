"""The threads of a Python process as its faulthandler wrote them down, and which of their frames are the program's own. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HEAD = re.compile(r"(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\S+?),? in (.*)')
# Either, as a stack that is deeper than faulthandler goes (100 frames) has lost its end.
_BOOT = ("/worker/start.py", "/worker/boot.py")
# What lies beneath the program's first frame in a process that boot.py has started.
_BENEATH = re.compile(r"/worker/(start|boot|call)\.py$|^<frozen runpy>$|/lib/python3\.\d+t?/runpy\.py$")
_LIBRARY = re.compile(r".*/(?:(?:site|dist)-packages|lib/python3\.\d+t?)/")
_FOREIGN = re.compile(rf"<|{_LIBRARY.pattern}|.*__autograph_generated_file")
_IMPORT = re.compile(r"<frozen importlib\._bootstrap|.*/lib/python3\.\d+t?/importlib/")


class Frame(NamedTuple):
    """One call, as Python tells of it."""

    file: str
    line: str
    function: str


class Thread(NamedTuple):
    """One thread, the innermost call first.

    Attributes:
        lines: what was written of it, without its head.
    """

    lines: tuple[str, ...]
    frames: tuple[Frame, ...]


class Dump:
    """What a process wrote.

    Attributes:
        main: its main thread, without what lies beneath the program; None when nothing was written.
        others: its other threads.
    """

    def __init__(self, text: str) -> None:
        threads = [Thread(tuple(lines), tuple(_frames(lines))) for lines in _blocks(text)]
        # Python lists the newest thread first.
        booted = (one for one in threads if one.frames and one.frames[-1].file.endswith(_BOOT))
        main = next(booted, next((one for one in reversed(threads) if one.frames), None))
        self.main = main and _above_boot(main)
        self.others = [one for one in threads if one is not main]
        whole = main is not None and self.main is not main
        self._package = _folder(main.frames[-1].file) if main and whole else ""
        self._home = _folder(self.main.frames[-1].file) if self.main and self.main.frames and whole else ""

    @property
    def own(self) -> list[Frame]:
        """The main thread's frames of the program itself."""
        return self.own_of(self.main) if self.main else []

    @property
    def foreign(self) -> list[Frame]:
        """Those of what it has called and waits for."""
        frames = list(self.main.frames) if self.main else []
        return frames[: frames.index(self.own[0])] if self.own else frames

    @property
    def imports(self) -> str:
        """The package that the main thread imports; empty when it does not."""
        outwards = list(reversed(self.foreign))
        start = next((at for at, frame in enumerate(outwards) if _IMPORT.match(frame.file)), None)
        if start is None:
            return ""
        module = next((frame for frame in outwards[start:] if not _IMPORT.match(frame.file)), None)
        return "a module" if module is None else self.short(module.file).partition("/")[0].removesuffix(".py")

    def own_of(self, thread: Thread) -> list[Frame]:
        """A thread's frames of the program itself: a library's, or this package's, where one of these was run."""
        return [frame for frame in thread.frames if self._is_own(frame.file)]

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
        installed = bool(_FOREIGN.match(self._home)) and file.startswith(self._home)
        return installed or not _FOREIGN.match(file)


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


def _frames(lines: Sequence[str]) -> Iterator[Frame]:
    for line in lines:
        if found := _FRAME.fullmatch(line):
            yield Frame(*found.groups())


def _above_boot(main: Thread) -> Thread:
    if not main.frames or not main.frames[-1].file.endswith(_BOOT):
        return main
    kept = len(main.frames)
    while kept and _BENEATH.search(main.frames[kept - 1].file):
        kept -= 1
    return Thread(main.lines[: kept - len(main.frames)], main.frames[:kept])


def _folder(file: str) -> str:
    return file.rpartition("/")[0] + "/"
