from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launcher import plan as plan_module
from launcher.config import ClusterConfig, HostSpec, Program
from launcher.console import Console
from launcher.outcome import Outcome, TaskOutcome
from launcher.placement import Host, place
from launcher.verdict import Fate, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from launcher.plan import Plan

    Start = Callable[..., tuple["Console", "Screen"]]

pytestmark = pytest.mark.timeout(60)

RUN_DIR = Path("/runs/t-1")


def make_plan(workers: int = 2, exposed: tuple[str, ...] = (), **jobs: Any) -> Plan:
    config = ClusterConfig(
        command=Program(("true",)), name="t", engine="local", hosts=(HostSpec("127.0.0.1"),), workers=workers, **jobs
    )
    hosts = [Host("127.0.0.1", exposed=exposed)]
    return plan_module.make(config, place(config, hosts), hosts, "py", {}, run="t-1")


class Screen:
    """The reading end of a console's standard output, and where standard error goes."""

    def __init__(self, out: int, err: int) -> None:
        self.out = out
        self.err = err

    def read(self) -> bytes:
        """What is there now, on standard output."""
        return _everything(self.out)

    def said(self) -> str:
        """What is there now, on standard error."""
        return _everything(self.err).decode()


def _everything(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    found = b""
    try:
        while data := os.read(descriptor, 1 << 20):
            found += data
    except BlockingIOError:
        pass
    return found


@pytest.fixture
def descriptors() -> Iterator[Callable[[], tuple[int, int]]]:
    """Pipes that are closed in the end, whoever closed them before."""
    opened: list[int] = []

    def pipe() -> tuple[int, int]:
        pair = os.pipe()
        opened.extend(pair)
        return pair

    yield pipe
    for descriptor in opened:
        try:
            os.close(descriptor)
        except OSError:
            continue


@pytest.fixture
def start(descriptors: Callable[[], tuple[int, int]]) -> Start:
    """Make a console that writes to two pipes and knows who is who."""

    def console(output: Any = "all", plan: Plan | None = None) -> tuple[Console, Screen]:
        (out, stdout), (err, stderr) = descriptors(), descriptors()
        made, screen = Console(output, stdout=stdout, stderr=stderr), Screen(out, err)
        made.introduce(plan or make_plan(), RUN_DIR)
        return made, screen

    return console


class TestLines:
    def shown(self, start: Start, *chunks: bytes) -> bytes:
        console, screen = start(plan=make_plan(workers=1))
        for chunk in chunks:
            console.output(0, chunk)
        console.finish(0)
        assert console.flush()
        return screen.read()

    @pytest.mark.parametrize(
        ("chunks", "expected"),
        [
            ([b"a\nb\n"], [b"a", b"b"]),
            ([b"a\n\nb\n"], [b"a", b"", b"b"]),
            ([b"ab", b"c\nd", b"\n"], [b"abc", b"d"]),
            ([b"no newline at the end"], [b"no newline at the end"]),
            ([b"a\nb"], [b"a", b"b"]),
            ([b"\xff\x00\x1b[31m\n"], [b"\xff\x00\x1b[31m"]),
            ([b"caf\xc3", b"\xa9\n"], [b"caf\xc3\xa9"]),
            ([b""], []),
        ],
    )
    def test_each_has_its_prefix_and_its_bytes(self, start: Start, chunks: list[bytes], expected: list[bytes]) -> None:
        assert self.shown(start, *chunks) == b"".join(b"worker 0 | " + line + b"\n" for line in expected)

    @pytest.mark.parametrize(
        ("chunks", "expected"),
        [
            ([b"1%\r2%\r3%\n"], [b"3%"]),
            ([b"\r1%", b"\r2%", b"\r3%", b"\n"], [b"3%"]),
            ([b"1%\r", b"2%\r", b"3%\r"], [b"3%"]),
            ([b"1%\r", b"2%\r", b"done\n"], [b"done"]),
            ([b"1%\r", b"\ndone\n"], [b"1%", b"done"]),
            ([b"a\r\nb\r\n"], [b"a", b"b"]),
            ([b"a\r", b"\nb"], [b"a", b"b"]),
            ([b"a\n1%\r2", b"%\nb\n"], [b"a", b"2%", b"b"]),
            ([b"1%\r2%"], [b"2%"]),
        ],
    )
    def test_a_progress_bar_is_shown_in_its_last_state(
        self, start: Start, chunks: list[bytes], expected: list[bytes]
    ) -> None:
        assert self.shown(start, *chunks) == b"".join(b"worker 0 | " + line + b"\n" for line in expected)

    def test_however_the_bytes_are_cut(self, start: Start) -> None:
        text = b"start\n\r10%\r20%\r\n30%\r40%\rdone\r\n\nlast"
        expected = self.shown(start, text)
        assert expected.split(b"worker 0 | ")[1:] == [b"start\n", b"20%\n", b"done\n", b"\n", b"last\n"]
        for cut in range(len(text)):
            assert self.shown(start, text[:cut], text[cut:]) == expected
        assert self.shown(start, *(text[i : i + 1] for i in range(len(text)))) == expected

    def test_lines_of_tasks_do_not_mix(self, start: Start) -> None:
        console, screen = start()
        console.output(0, b"from ")
        console.output(1, b"other\n")
        console.output(0, b"one\n")
        console.flush()
        assert screen.read() == b"worker 1 | other\nworker 0 | from one\n"

    def test_prefixes_are_of_one_width(self, start: Start) -> None:
        console, screen = start(plan=make_plan(workers=1, ps=1, evaluator=1))
        for task in range(3):
            console.output(task, b"x\n")
        console.flush()
        assert screen.read() == b"worker 0    | x\nps 0        | x\nevaluator 0 | x\n"

    def test_an_endless_line_is_shown_in_pieces(self, tmp_path: Path) -> None:
        with (tmp_path / "out").open("w+b") as file, (tmp_path / "err").open("wb") as err:
            console = Console("all", stdout=file.fileno(), stderr=err.fileno())
            console.introduce(make_plan(workers=1), RUN_DIR)
            console.output(0, b"x" * (17 << 20))
            assert console.flush()
            assert os.fstat(file.fileno()).st_size > 17 << 20


class TestWhoseLines:
    @pytest.mark.parametrize(
        ("output", "expected"),
        [("all", b"worker 0 | a\nworker 1 | b\n"), ("chief", b"worker 0 | a\n"), ("failed", b""), ("none", b"")],
    )
    def test_are_shown(self, start: Start, output: str, expected: bytes) -> None:
        console, screen = start(output)
        console.output(0, b"a\n")
        console.output(1, b"b\n")
        console.finish(0)
        console.flush()
        assert screen.read() == expected


class TestOurOwnLines:
    def test_the_introduction(self, start: Start) -> None:
        console, screen = start(plan=make_plan(exposed=("10.0.0.1",)))
        console.flush()
        first, *notes = screen.said().splitlines()
        assert first == "tflaunch  t: 2 workers on this machine · logs in /runs/t-1"
        assert "10.0.0.1" in notes[0]
        assert screen.read() == b""

    def test_further_lines_are_indented(self, start: Start) -> None:
        console, screen = start("none", make_plan())
        console.say("one\ntwo")
        console.flush()
        assert screen.said() == "tflaunch  one\n          two\n"

    def test_they_keep_their_place_among_the_workers_lines(self, descriptors: Callable[[], tuple[int, int]]) -> None:
        read, write = descriptors()
        console = Console("all", stdout=write, stderr=write)
        console.introduce(make_plan(workers=1), RUN_DIR)
        console.output(0, b"a\n")
        console.say("between")
        console.output(0, b"b\n")
        console.flush()
        assert _everything(read).decode().splitlines()[1:] == ["worker 0 | a", "tflaunch  between", "worker 0 | b"]


def outcome(log: Path, fate: Fate, status: Any = "failed") -> Outcome:
    tasks = make_plan().tasks
    verdict = Verdict(status, 1, None, "the reason", "", {0: fate, 1: "done"})
    ends = (TaskOutcome(tasks[0], fate, 1, None, 0, log), TaskOutcome(tasks[1], "done", 0, None, 0, log))
    return Outcome(verdict, ends, RUN_DIR)


class TestTell:
    @pytest.mark.parametrize(("fate", "replayed"), [("failed", True), ("victim", True), ("stopped", False)])
    def test_what_failed_is_shown_at_the_end(self, start: Start, tmp_path: Path, fate: Fate, replayed: bool) -> None:
        log = tmp_path / "worker-0.log"
        log.write_bytes(b"1%\r2%\nlast words\n")
        console, screen = start("failed")
        console.tell(outcome(log, fate))
        console.flush()
        assert screen.read() == (b"worker 0 | 2%\nworker 0 | last words\n" if replayed else b"")
        assert "the reason" in screen.said()

    def test_a_task_that_wrote_nothing_has_no_log(self, start: Start, tmp_path: Path) -> None:
        console, screen = start("failed")
        console.tell(outcome(tmp_path / "absent.log", "failed"))
        console.flush()
        assert screen.read() == b""

    @pytest.mark.parametrize(
        ("output", "status", "told"), [("none", "ok", False), ("none", "failed", True), ("all", "ok", True)]
    )
    def test_silence_is_for_success_alone(
        self, start: Start, tmp_path: Path, output: str, status: str, told: bool
    ) -> None:
        console, screen = start(output)
        console.flush()
        screen.said()
        console.tell(outcome(tmp_path / "absent.log", "done", status))
        console.flush()
        assert bool(screen.said()) is told


class TestColour:
    @pytest.fixture
    def terminal(self) -> Iterator[tuple[int, int]]:
        pair = os.openpty()
        yield pair
        for descriptor in pair:
            os.close(descriptor)

    def shown(self, terminal: tuple[int, int]) -> bytes:
        ours, theirs = terminal
        console = Console("all", stdout=theirs, stderr=theirs)
        console.introduce(make_plan(workers=1), RUN_DIR)
        console.output(0, b"x\n")
        console.flush()
        found = b""
        # A terminal hands over what it has, which need not be all that was written.
        while not found.endswith(b"x\r\n"):
            found += os.read(ours, 4096)
        return found

    def test_on_a_terminal(self, terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        found = self.shown(terminal)
        assert b"\x1b[36mworker 0 | \x1b[0mx\r\n" in found
        assert b"\x1b[1mtflaunch\x1b[0m" in found

    @pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_not_where_it_is_not_wanted(
        self, terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(name, value)
        assert b"\x1b" not in self.shown(terminal)

    def test_not_in_a_pipe(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        console, screen = start()
        console.output(0, b"x\n")
        console.flush()
        assert screen.read() == b"worker 0 | x\n"
        assert "\x1b" not in screen.said()


LINE = b"x" * 63 + b"\n"


class TestSlowReader:
    def fill(self, console: Console, size: int) -> int:
        """Hand over at least so many bytes of lines; returns how many lines."""
        chunk = LINE * (size // 16 // len(LINE) + 1)
        for _ in range(16):
            console.output(0, chunk)
        return 16 * chunk.count(b"\n")

    def test_a_frozen_pipe_never_blocks(self, start: Start) -> None:
        console, screen = start()
        count = self.fill(console, 1 << 20)
        assert console.flush() is False
        assert console.flush() is False
        assert console.blocked_on is not None
        found = screen.read()
        while not console.flush():
            found += screen.read()
        found += screen.read()
        assert found == (b"worker 0 | " + LINE) * count
        assert console.blocked_on is None

    def test_a_frozen_socket_never_blocks(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            console = Console("all", stdout=theirs.fileno(), stderr=theirs.fileno())
            console.introduce(make_plan(), RUN_DIR)
            self.fill(console, 1 << 20)
            for _ in range(1 << 13):
                assert console.flush() is False

    def test_nobody_elses_writes_become_non_blocking(self, descriptors: Callable[[], tuple[int, int]]) -> None:
        _, stdout = descriptors()
        Console("all", stdout=stdout, stderr=stdout).say("x")
        assert os.get_blocking(stdout)

    def test_what_is_skipped_is_counted(self, start: Start) -> None:
        console, screen = start()
        count = self.fill(console, 40 << 20)
        console.output(0, b"no newline")
        console.finish(0)
        found = bytearray()
        while not console.flush():
            found += screen.read()
        found += screen.read()
        assert found.replace(b"worker 0 | " + LINE, b"") == b""
        shown = found.count(b"\n")
        assert shown < count
        message = screen.said().splitlines()[-1]
        assert f"could not keep up: {count + 1 - shown} lines skipped" in message

    def test_after_a_skip_it_goes_on(self, start: Start) -> None:
        console, screen = start()
        self.fill(console, 40 << 20)
        while not console.flush():
            screen.read()
        screen.read()
        console.output(0, b"back again\n")
        assert console.flush()
        assert screen.read() == b"worker 0 | back again\n"

    def test_a_reader_that_is_gone_swallows_everything(self, start: Start) -> None:
        console, screen = start()
        os.close(screen.out)
        self.fill(console, 1 << 20)
        assert console.flush()
        console.drain()

    def test_when_much_waits_it_is_given_a_moment(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        console, screen = start()
        moments = []

        def moment(*_: object) -> None:
            moments.append(screen.read())

        monkeypatch.setattr("select.select", moment)
        # A pipe takes 1 MiB at most.
        while console.flush():
            console.output(0, b"x" * 99 + b"\n")
        console.give_way()
        assert not moments
        console.output(0, (b"x" * 99 + b"\n") * 11_000)
        console.give_way()
        assert len(moments) == 1
        assert b"worker 0 | x" in screen.read(), "what it has made room for is written at once"


class TestDrain:
    def test_it_goes_on_as_long_as_something_is_taken(self, start: Start) -> None:
        console, screen = start()
        os.set_blocking(screen.out, True)
        expected = (b"worker 0 | " + LINE) * 20_000
        console.output(0, LINE * 20_000)
        found = bytearray()

        def read() -> None:
            while len(found) < len(expected):
                found.extend(os.read(screen.out, 1000))

        reader = threading.Thread(target=read)
        reader.start()
        console.drain()
        reader.join()
        assert found == expected

    def test_it_gives_up_on_a_frozen_reader(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("launcher.console._STALLED", 0.05)
        console, _ = start()
        console.output(0, LINE * 20_000)
        console.drain()
        assert console.blocked_on is not None
