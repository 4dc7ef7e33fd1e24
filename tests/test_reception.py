from __future__ import annotations

import json
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from launcher import events
from launcher.console import Console
from launcher.errors import RequestError, UnavailableError
from launcher.loop import Loop
from launcher.reception import Reception
from launcher.run_dir import OUTCOME, RunDir
from launcher.runs import alive, below, look, reach
from launcher.visit import ask, follow, frames, introduce
from tests.test_supervisor import Run

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)
PATIENCE = 30.0
ENDED = {"exit_status": 3, "reason": "no luck", "hint": "", "more": "is not told"}


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Console("none", stdout=-1, stderr=-1) as console, Loop(console, None) as made:
        yield made


@pytest.fixture
def reception(tmp_path: Path) -> Iterator[Reception]:
    made = Reception(tmp_path)
    yield made
    made.close()


def served(loop: Loop, visit: Callable[[], Any]) -> tuple[Any, list[events.Event]]:
    """What a visitor is told, and what the run hears of it."""
    told: list[Any] = []

    def goes() -> None:
        told.append(visit())
        loop.post(events.DeadlinePassed("gone"))

    visitor = threading.Thread(target=goes)
    visitor.start()
    heard: list[events.Event] = []
    while events.DeadlinePassed("gone") not in heard:
        heard += loop.wait()
    visitor.join()
    return told[0], heard[:-1]


def shown(line: socket.socket, reception: Reception) -> list[Any]:
    """All that a follower is shown until the reception closes."""
    reception.end(ENDED, told=False)
    reception.close()
    with closing(line):
        return [(task, frame) if task >= 0 else frame for task, frame in frames(line)]


def test_it_opens_by_itself_when_the_start_takes_its_time(
    loop: Loop, reception: Reception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.reception.SOON", 0.01)
    reception.expect(loop)
    assert not (tmp_path / "control.sock").exists()
    while not (tmp_path / "control.sock").exists():
        assert list(loop.wait()) == []
    told, _ = served(loop, lambda: ask(tmp_path, "status", PATIENCE))
    assert told["state"] == "starting"
    told, heard = served(loop, lambda: ask(tmp_path, "stacks", PATIENCE))
    assert (told, heard) == ({"idle": "no workers are running"}, [])


@pytest.mark.parametrize("now", [False, True])
def test_who_wants_it_to_stop_is_heard(loop: Loop, reception: Reception, tmp_path: Path, now: bool) -> None:
    reception.open(loop)
    told, heard = served(loop, lambda: ask(tmp_path, "stop", PATIENCE, now=now))
    assert (told, heard) == ({}, [events.StopAsked(now)])


def test_a_follower_is_shown_the_last_and_all_that_comes(loop: Loop, reception: Reception, tmp_path: Path) -> None:
    reception.say("two workers", alarm=False)
    reception.begin(Run().supervisor.plan)
    reception.open(loop)
    reception.output(0, b"before\n")
    line, _ = served(loop, lambda: follow(tmp_path, PATIENCE))
    while not any(one.stays for one in reception._door._visitors):  # type: ignore[union-attr]
        list(loop.wait())
    reception.output(1, b"after\n")
    reception.finish(1)
    begin, *rest = shown(line, reception)
    assert begin["tasks"] == ["worker 0", "worker 1"]
    assert rest == [
        {"do": "said", "text": "two workers", "alarm": False},
        (0, b"before\n"),
        (1, b"after\n"),
        {"do": "finished", "task": 1},
        {"do": "ended", "told": False, "exit_status": 3, "reason": "no luck", "hint": ""},
    ]


def test_a_guest_is_there_from_the_beginning(loop: Loop, tmp_path: Path) -> None:
    ours, theirs = introduce()
    reception = Reception(tmp_path, theirs)
    reception.expect(loop)
    list(loop.wait())
    reception.begin(Run().supervisor.plan)
    for number in range(2):
        reception.take(events.TaskStarted(number, 1), 0.0)
    assert [frame["do"] for frame in shown(ours, reception)] == ["run", "run", "started", "ended"]


def test_where_there_can_be_no_socket_a_guest_is_served(loop: Loop, tmp_path: Path) -> None:
    ours, theirs = introduce()
    reception = Reception(tmp_path / "absent", theirs)
    reception.expect(loop)
    assert [frame["do"] for frame in shown(ours, reception)] == ["run", "ended"]


@pytest.mark.parametrize(
    ("written", "cut"),
    [
        ([(0, b"x" * 9_000 + b"\n")], [0]),
        ([(0, b"x" * 100 + b"\n" + b"y" * 8_192)], []),
        ([(0, b"half"), (1, b"x\n" * 5_000)], [0]),
        ([(0, b"whole\n"), (1, b"x\n" * 5_000)], []),
    ],
)
def test_whose_lines_begin_somewhere_is_told(
    loop: Loop, reception: Reception, tmp_path: Path, written: list[tuple[int, bytes]], cut: list[int]
) -> None:
    reception.begin(Run().supervisor.plan)
    reception.open(loop)
    for task, data in written:
        reception.output(task, data)
    line, _ = served(loop, lambda: follow(tmp_path, PATIENCE))
    while not any(one.stays for one in reception._door._visitors):  # type: ignore[union-attr]
        list(loop.wait())
    begin, *rest = shown(line, reception)
    assert begin["cut"] == cut
    assert sum(len(frame[1]) for frame in rest[:-1]) <= 8_192


def test_of_what_a_follower_does_not_take_some_is_skipped(loop: Loop, reception: Reception, tmp_path: Path) -> None:
    reception.begin(Run().supervisor.plan)
    reception.open(loop)
    line, _ = served(loop, lambda: follow(tmp_path, PATIENCE))
    while not any(one.stays for one in reception._door._visitors):  # type: ignore[union-attr]
        list(loop.wait())
    piece = b"x" * (1 << 20)
    for _ in range(20):
        reception.output(0, piece)
    with ExitStack() as kept:
        found: list[Any] = []
        reader = threading.Thread(target=lambda: found.extend(frames(line)))
        reader.start()
        kept.callback(reader.join)
        reception.end(ENDED, told=True)
        reception.close()
    skipped = [frame["bytes"] for _, frame in found if isinstance(frame, dict) and frame["do"] == "skipped"]
    came = sum(len(frame) for _, frame in found if isinstance(frame, bytes))
    assert len(skipped) == 1
    assert skipped[0] + came >= 20 << 20
    assert found[-1][1]["do"] == "ended"


class TestLook:
    @pytest.fixture
    def run_dir(self, tmp_path: Path) -> Iterator[RunDir]:
        made = RunDir.named(tmp_path, "t", pytest.fail)
        made.make()
        yield made
        made.close()

    def test_one_that_has_no_door_yet(self, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        assert look(run_dir.path).state == "starting"
        monkeypatch.setattr("launcher.runs.PATIENCE", 0.1)
        with pytest.raises(UnavailableError, match="does not answer"):
            reach(run_dir.path)

    def test_one_that_is_lost(self, run_dir: RunDir) -> None:
        run_dir.close()
        assert look(run_dir.path).state == "lost"

    def test_one_whose_launcher_was_killed_at_the_door(self, run_dir: RunDir, loop: Loop) -> None:
        reception = Reception(run_dir.path)
        reception.open(loop)
        assert reception._door is not None
        reception._door._socket.close()
        # Somebody else may hold the lock still: a child that it had forked.
        assert look(run_dir.path).state == "lost"

    @pytest.mark.parametrize(
        ("word", "status", "state"), [("ok", 0, "done"), ("failed", 3, "failed"), ("interrupted", 143, "stopped")]
    )
    def test_one_that_is_over(self, run_dir: RunDir, word: str, status: int, state: str) -> None:
        run_dir.write(OUTCOME, {"status": word, "exit_status": status})
        found = look(run_dir.path)
        assert (found.state, found.alive) == (state, False)
        with pytest.raises(RequestError, match="is over"):
            reach(run_dir.path)

    def test_the_newest_comes_first(self, tmp_path: Path) -> None:
        names = [f"t-202611{day}T000000Z-00000{day % 10}" for day in (12, 11, 14)]
        for name in names:
            made = RunDir(tmp_path / name, pytest.fail)
            made.make()
            made.close()
        (tmp_path / "no run").mkdir()
        assert [path.name for path in below(tmp_path)] == sorted(names, reverse=True)
        assert below(tmp_path / "absent") == []
        with pytest.raises(RequestError, match="no run is alive here"):
            alive(tmp_path)

    def test_how_far_one_was_that_is_over(self, run_dir: RunDir) -> None:
        run_dir.write(OUTCOME, {"exit_status": 0, "tasks": [1, 2]})
        for step in range(3):
            run_dir.event(events.TaskReport(0, {"kind": "progress", "step": step, "of": 3}), 5.0)
        run_dir.event(events.DeadlinePassed("x"), 6.0)
        told = json.loads(json.dumps(look(run_dir.path).as_json()))
        assert (told["progress"], told["state"]) == ({"step": 2, "of": 3, "time": 5.0}, "done")
