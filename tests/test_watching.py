from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from launcher.agent import wire
from launcher.console import Console
from launcher.watching import watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = {"do": "run", "tasks": ["worker 0", "worker 1"], "chief": 0, "attempt": 0, "cut": []}
ENDED = {"do": "ended", "told": True, "exit_status": 0, "reason": "", "hint": ""}


class Screen:
    """A console of which everything is seen, and the line that is watched on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line, self.launcher = socket.socketpair()

    def watch(self, *frames: dict[str, Any] | bytes, **how: Any) -> Any:
        for frame in frames:
            self.launcher.sendall(frame if isinstance(frame, bytes) else wire.control(frame))
        self.launcher.close()
        with self.path.open("wb") as file, Console("all", stdout=file.fileno(), stderr=file.fileno()) as console:
            return watch(self.line, console, **how)

    @property
    def shown(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    made = Screen(tmp_path / "screen")
    with closing(made.line), closing(made.launcher):
        yield made


def output(task: int, data: bytes) -> bytes:
    return wire.HEADER.pack(wire.OUTPUT, task, len(data)) + data


def test_it_is_shown_as_on_the_terminal_of_the_run(screen: Screen) -> None:
    said = {"do": "said", "text": "one\ntwo", "alarm": False}
    frames: list[Any] = [
        RUN,
        output(1, b"a\nb"),
        output(0, b"c\n"),
        {"do": "finished", "task": 1},
        said,
        {"do": "new"},
        ENDED,
    ]
    assert screen.watch(*frames, output(0, b"is not read")) == ENDED
    assert screen.shown == ["worker 1 | a", "worker 0 | c", "worker 1 | b", "tflaunch  one", "          two"]


def test_what_begins_somewhere_in_a_line_is_shown_from_the_next_one_on(screen: Screen) -> None:
    screen.watch({**RUN, "cut": [0]}, output(0, b"rest "), output(1, b"whole\n"), output(0, b"of it\nnext\n"), ENDED)
    assert screen.shown == ["worker 1 | whole", "worker 0 | next"]


def test_what_is_skipped_is_told(screen: Screen) -> None:
    screen.watch(RUN, {"do": "skipped", "bytes": 12345}, ENDED)
    assert "12,345 bytes" in screen.shown[0]


def test_who_waits_for_the_start_alone_is_done_then(screen: Screen) -> None:
    assert screen.watch(RUN, {"do": "started"}, ENDED, last="started") == {"do": "started"}


@pytest.mark.parametrize("frames", [[], [RUN], [RUN, wire.control(ENDED)[:-3]]])
def test_a_launcher_that_hangs_up_without_a_word(screen: Screen, frames: list[Any]) -> None:
    assert screen.watch(*frames) == {}


def test_nobody_reads_any_more(screen: Screen) -> None:
    read, write = os.pipe()
    os.close(read)
    screen.launcher.sendall(wire.control(RUN) + output(0, b"x\n"))
    with pytest.raises(BrokenPipeError), Console("all", stdout=write, stderr=write) as console:
        watch(screen.line, console)
    os.close(write)
