from __future__ import annotations

import errno
import json
import os
import select
import socket
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from launcher import events
from launcher.door import FILE, Door, reachable
from launcher.visit import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)
REQUEST = b'{"do": "stacks"}\n'
PATIENCE = 30.0


@contextmanager
def opened(folder: Path) -> Iterator[Door]:
    """One at which stacks may be asked for, and to stay."""

    def follow(_: Mapping[str, Any]) -> Iterator[events.Event]:
        made.keep("follow", b"first ")
        yield from ()

    with Door({"stacks": lambda _: [events.StacksAsked()], "follow": follow}) as made:
        made.listen(folder)
        yield made


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with opened(tmp_path) as made:
        yield made


def visit(folder: Path) -> socket.socket:
    visitor = socket.socket(socket.AF_UNIX)
    visitor.settimeout(PATIENCE)
    with reachable(folder) as path:
        visitor.connect(path)
    return visitor


def heard(door: Door) -> list[events.Event]:
    """Wait for whatever is next at the door, and take it in."""
    assert select.select([door], [], [], PATIENCE)[0]
    return list(door.receive())


def until_asked(door: Door) -> None:
    while heard(door) != [events.StacksAsked()]:
        pass


def quiet(door: Door) -> bool:
    """Nothing more is to be taken in."""
    while select.select([door], [], [], 0)[0]:
        assert list(door.receive()) == []
    return True


def said(visitor: socket.socket) -> bytes:
    """All that a visitor is told."""
    found = b""
    while data := visitor.recv(1 << 16):
        found += data
    return found


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - its own would be among them


def test_who_asks_is_answered(door: Door, tmp_path: Path) -> None:
    with closing(visit(tmp_path)) as visitor:
        visitor.sendall(REQUEST)
        until_asked(door)
        door.tell("something else", {"no": 1})
        door.tell("stacks", {"lines": ["é"]})
        assert json.loads(said(visitor)) == {"lines": ["é"]}
        door.tell("stacks", {"lines": []})


def test_all_who_ask_are(door: Door, tmp_path: Path) -> None:
    with closing(visit(tmp_path)) as one, closing(visit(tmp_path)) as other:
        for visitor in (one, other):
            visitor.sendall(REQUEST)
            until_asked(door)
        door.tell("stacks", {})
        assert said(one) == said(other) == b"{}\n"


def test_a_request_may_come_in_pieces_and_end_with_the_senders_side(door: Door, tmp_path: Path) -> None:
    with closing(visit(tmp_path)) as visitor:
        visitor.sendall(REQUEST[:5])
        assert quiet(door)
        visitor.sendall(REQUEST[5:] + REQUEST)
        visitor.shutdown(socket.SHUT_WR)
        until_asked(door)
        assert quiet(door)
        door.tell("stacks", {})
        assert said(visitor) == b"{}\n"


@pytest.mark.parametrize(
    "line", [b"\n", b"\xff\xfe\n", b"[]\n", b'{"do": 1}\n', b'{"do": "dance"}\n', b"[" * 4000 + b"\n"]
)
def test_what_is_no_request_is_told_so(door: Door, tmp_path: Path, line: bytes) -> None:
    with closing(visit(tmp_path)) as visitor:
        visitor.sendall(line)
        assert quiet(door)
        assert json.loads(said(visitor)) == {"error": "no such request; known: stacks, follow"}


def test_who_never_comes_to_an_end_is_shown_out(door: Door, tmp_path: Path) -> None:
    with closing(visit(tmp_path)) as visitor:
        visitor.sendall(b"x" * 5000)
        assert quiet(door)
        assert door._visitors == []


@pytest.mark.parametrize("words", [b"", b"{", REQUEST])
def test_who_leaves_early_is_forgotten(door: Door, tmp_path: Path, words: bytes) -> None:
    visitor = visit(tmp_path)
    visitor.sendall(words)
    visitor.close()
    if words == REQUEST:
        until_asked(door)
    assert quiet(door)
    door.tell("stacks", {"much": "x" * 1_000_000})
    assert quiet(door)
    assert door._visitors == []


def test_who_does_not_read_holds_nobody_up(door: Door, tmp_path: Path) -> None:
    answer = {"much": "x" * 1_000_000}
    with closing(visit(tmp_path)) as idle, closing(visit(tmp_path)) as keen:
        for visitor in (idle, keen):
            visitor.sendall(REQUEST)
            until_asked(door)
        door.tell("stacks", answer)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(said(keen)))
        reader.start()
        while reader.is_alive():
            if select.select([door], [], [], 0.01)[0]:
                assert list(door.receive()) == []
        assert json.loads(found[0]) == answer


def stay(door: Door, folder: Path) -> socket.socket:
    """Somebody who is given what is poured."""
    visitor = visit(folder)
    visitor.sendall(b'{"do": "follow"}\n')
    while not any(one.stays for one in door._visitors):
        assert heard(door) == []
    return visitor


def test_who_stays_is_given_what_comes(door: Door, tmp_path: Path) -> None:
    door.pour(b"before ")
    with closing(stay(door, tmp_path)) as visitor:
        door.pour(b"one ", b"two ")
        assert not door.owes
        door.__exit__()
        assert said(visitor) == b"first one two "


def test_who_stays_and_then_leaves_is_forgotten(door: Door, tmp_path: Path) -> None:
    stay(door, tmp_path).close()
    assert heard(door) == []
    assert door._visitors == []


def test_what_one_who_stays_says_is_passed_over(door: Door, tmp_path: Path) -> None:
    with closing(stay(door, tmp_path)) as visitor:
        visitor.sendall(REQUEST)
        assert quiet(door)
        door.pour(b"more")
        assert visitor.recv(100) == b"first more"


def test_who_stays_and_does_not_read_misses_something_and_is_told(door: Door, tmp_path: Path) -> None:
    with closing(stay(door, tmp_path)) as visitor:
        for _ in range(12):
            door.pour(b"x" * (1 << 20), spare=True)
        door.pour(b"the end")
        found = bytearray()
        while not found.endswith(b"the end"):
            found += visitor.recv(1 << 20)
            assert quiet(door)
        assert b'{"do":"skipped","bytes":' in found
        assert len(found) < 12 << 20


def test_who_says_nothing_makes_room_for_others(door: Door, tmp_path: Path) -> None:
    with closing(visit(tmp_path)) as visitor:
        visitor.sendall(REQUEST)
        until_asked(door)
        crowd = [visit(tmp_path) for _ in range(100) if quiet(door)]
        door.tell("stacks", {})
        assert said(visitor) == b"{}\n"
    for one in crowd:
        one.close()


def test_where_no_descriptor_is_left_nobody_is_let_in_and_nobody_kept_busy(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accept(_: socket.socket) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", accept)
    with closing(visit(tmp_path)):
        assert heard(door) == []
        assert select.select([door], [], [], 0) == ([], [], [])


def test_when_one_is_free_again_they_are_let_in(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(_: socket.socket) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with closing(visit(tmp_path)) as visitor:
        assert quiet(door)
        monkeypatch.setattr(socket.socket, "accept", accept)
        with closing(visit(tmp_path)) as late:
            assert quiet(door)
            monkeypatch.undo()
            visitor.close()
            late.sendall(REQUEST)
            until_asked(door)


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    before = descriptors()
    with opened(tmp_path) as door, closing(visit(tmp_path)) as visitor:
        visitor.sendall(REQUEST)
        until_asked(door)
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before


def test_a_folder_may_lie_as_deep_as_it_likes(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["deeper" * 10] * 4)
    deep.mkdir(parents=True)
    assert len(str(deep / FILE)) > 200
    with opened(deep), closing(visit(deep)):
        assert (deep / FILE).is_socket()


class TestAsk:
    def test_the_answer(self, door: Door, tmp_path: Path) -> None:
        found: list[dict[str, object]] = []
        asking = threading.Thread(target=lambda: found.append(ask(tmp_path, "stacks", PATIENCE)))
        asking.start()
        until_asked(door)
        door.tell("stacks", {"much": "x" * 1_000_000})
        while asking.is_alive():
            if select.select([door], [], [], 0.01)[0]:
                assert list(door.receive()) == []
        assert found == [{"much": "x" * 1_000_000}]

    def test_where_there_is_no_door(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            ask(tmp_path, "stacks", PATIENCE)

    def test_of_one_that_is_gone(self, tmp_path: Path) -> None:
        with closing(socket.socket(socket.AF_UNIX)) as left, reachable(tmp_path) as path:
            left.bind(path)
        with pytest.raises(ConnectionError):
            ask(tmp_path, "stacks", PATIENCE)

    def test_of_one_that_goes_before_it_answers(self, tmp_path: Path) -> None:
        failed: list[type[BaseException]] = []

        def asks() -> None:
            with pytest.raises(ConnectionError) as caught:
                ask(tmp_path, "stacks", PATIENCE)
            failed.append(caught.type)

        with opened(tmp_path) as door:
            asking = threading.Thread(target=asks)
            asking.start()
            until_asked(door)
        asking.join()
        assert len(failed) == 1

    @pytest.mark.usefixtures("door")
    @pytest.mark.parametrize("queue", [0, 200])
    def test_of_one_that_stands_still(self, tmp_path: Path, queue: int) -> None:
        crowd = []
        for _ in range(queue):
            visitor = socket.socket(socket.AF_UNIX)
            visitor.setblocking(False)
            crowd.append(visitor)
            with reachable(tmp_path) as path:
                visitor.connect_ex(path)
        with pytest.raises(TimeoutError):
            ask(tmp_path, "stacks", 0.1)
        for visitor in crowd:
            visitor.close()
