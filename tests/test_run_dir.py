from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.errors import RequestError
from launcher.events import AgentLost, TaskExited, TaskStarted
from launcher.run_dir import AppendOnly, RunDir, find, held, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def create(base: Path, name: str, warn: Callable[[str], object]) -> RunDir:
    run_dir = RunDir.named(base, name, warn)
    run_dir.make()
    return run_dir


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def run_dir(tmp_path: Path, warnings: list[str]) -> Iterator[RunDir]:
    made = create(tmp_path / "runs", "t", warnings.append)
    yield made
    made.close()


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """As a full disk does: takes what fits, then refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestCreate:
    def test_it_is_named_after_the_run_and_the_time(self, run_dir: RunDir, tmp_path: Path) -> None:
        assert run_dir.path.parent == tmp_path / "runs"
        assert re.fullmatch(r"t-\d{8}T\d{6}Z-[0-9a-f]{6}", run_dir.path.name)

    def test_it_is_nobody_elses(self, run_dir: RunDir) -> None:
        for path in (run_dir.path, run_dir.path / "attempt-0", run_dir.path / "agents"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700

    def test_latest_points_to_the_newest(self, run_dir: RunDir, warnings: list[str]) -> None:
        base = run_dir.path.parent
        second = create(base, "t", warnings.append)
        assert (base / "latest").resolve() == second.path.resolve()
        assert {path.name for path in base.iterdir()} == {run_dir.path.name, second.path.name, "latest"}

    def test_latest_moves_with_its_folder(self, run_dir: RunDir, tmp_path: Path) -> None:
        run_dir.path.parent.rename(tmp_path / "elsewhere")
        assert (tmp_path / "elsewhere" / "latest" / "attempt-0").is_dir()

    def test_a_latest_that_is_no_link_of_ours_does_not_fail_the_run(self, tmp_path: Path, warnings: list[str]) -> None:
        (tmp_path / "latest").mkdir()
        (tmp_path / "latest" / "mine").touch()
        assert create(tmp_path, "t", warnings.append).path.is_dir()
        assert (tmp_path / "latest" / "mine").exists()

    def test_a_place_that_cannot_be_written(self, tmp_path: Path, warnings: list[str]) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(RequestError, match=r"cannot keep the run under .*/file/runs: Not a directory\n.*--run-dir"):
            create(tmp_path / "file" / "runs", "t", warnings.append)


class TestFiles:
    def test_output_has_every_byte_in_order(self, run_dir: RunDir) -> None:
        for data in (b"a\xff\r", b"\n", b"no newline"):
            run_dir.output("worker-0", data)
        run_dir.output("worker-1", b"other")
        assert run_dir.log_path("worker-0").read_bytes() == b"a\xff\r\nno newline"
        assert run_dir.log_path("worker-1") == run_dir.path / "attempt-0" / "worker-1.log"
        assert stat.S_IMODE(run_dir.log_path("worker-1").stat().st_mode) == 0o600

    def test_events_are_a_line_each(self, run_dir: RunDir) -> None:
        run_dir.event(AgentLost("a", "gone"), 12.3456789)
        run_dir.event(TaskStarted(1, 4711), 13.0)
        lines = [json.loads(line) for line in (run_dir.path / "events.jsonl").read_text().splitlines()]
        assert [(line["time"], line["event"]) for line in lines] == [(12.345679, "AgentLost"), (13.0, "TaskStarted")]
        assert (lines[0]["why"], lines[1]["pid"]) == ("gone", 4711)

    def test_an_exit_is_dated_when_it_happened(self, run_dir: RunDir) -> None:
        run_dir.event(TaskExited(1, None, 9, False, True, ("SIGTERM",), 5, 3.0), 12.0)
        line = json.loads((run_dir.path / "events.jsonl").read_text())
        assert (line["time"], line["signal"], line["sent"]) == (3.0, 9, ["SIGTERM"])

    def test_documents_are_json(self, run_dir: RunDir) -> None:
        run_dir.write("run.json", {"a": [1, "é"], "path": run_dir.path})
        assert json.loads((run_dir.path / "run.json").read_text()) == {"a": [1, "é"], "path": str(run_dir.path)}

    def test_a_document_is_there_whole_or_not_at_all(self, run_dir: RunDir, warnings: list[str]) -> None:
        run_dir.write("run.json", {"a": 1})
        with files_no_longer_than(10):
            run_dir.write("run.json", {"a": "x" * 100})
        assert json.loads((run_dir.path / "run.json").read_text()) == {"a": 1}
        assert not list(run_dir.path.glob("*.partial"))
        (warning,) = warnings
        assert str(run_dir.path / "run.json") in warning

    def test_the_words_of_an_agent(self, run_dir: RunDir) -> None:
        assert run_dir.agent_words("a/b") == ""
        run_dir.agent_log("a/b").write_text("Traceback\n  more\nOSError: no\n")
        assert run_dir.agent_log("a/b").parent == run_dir.path / "agents"
        assert run_dir.agent_words("a/b") == "OSError: no"

    def test_nothing_is_there_that_was_not_written(self, run_dir: RunDir) -> None:
        assert {path.name for path in run_dir.path.iterdir()} == {"attempt-0", "agents"}


class TestFullDisk:
    def test_the_gap_is_named_once_there_is_room_again(self, tmp_path: Path, warnings: list[str]) -> None:
        path = tmp_path / "log"
        log = AppendOnly(path, warnings.append)
        with files_no_longer_than(6):
            log.write(b"before and")
            log.write(b" during")
        log.write(b"after")
        log.close()
        gap = b"\n[tflaunch: 11 bytes are missing here: the disk was full]\n"
        assert path.read_bytes() == b"before" + gap + b"after"

    def test_the_user_is_told_once_a_file(self, tmp_path: Path, warnings: list[str]) -> None:
        log = AppendOnly(tmp_path / "log", warnings.append)
        with files_no_longer_than(0):
            log.write(b"a")
            log.write(b"b")
        log.close()
        (warning,) = warnings
        assert warning.startswith(f"CANNOT WRITE {tmp_path / 'log'}: File too large. The run goes on")

    def test_a_file_that_cannot_be_opened_is_no_different(self, tmp_path: Path, warnings: list[str]) -> None:
        log = AppendOnly(tmp_path / "absent" / "log", warnings.append)
        log.write(b"a")
        (tmp_path / "absent").mkdir()
        log.write(b"b")
        log.close()
        assert (tmp_path / "absent" / "log").read_bytes().endswith(b"1 bytes are missing here: the disk was full]\nb")
        assert len(warnings) == 1


class TestLastLines:
    @pytest.mark.parametrize(
        ("content", "count", "expected"),
        [
            (b"a\nb\nc\n", 2, ["b", "c"]),
            (b"a\nb", 5, ["a", "b"]),
            (b"a\n\n  \n", 1, ["a"]),
            (b"1%\r2%\r\n", 1, ["2%"]),
            (b"\xff\n", 1, ["�"]),
            (b"", 3, []),
            (b"x" * 200_000 + b"\nend\n", 1, ["end"]),
        ],
    )
    def test_as_a_person_would_read_them(self, tmp_path: Path, content: bytes, count: int, expected: list[str]) -> None:
        (tmp_path / "log").write_bytes(content)
        assert last_lines(tmp_path / "log", count) == expected

    def test_no_log_no_lines(self, tmp_path: Path) -> None:
        assert last_lines(tmp_path / "absent", 3) == []


def test_stacks_are_kept_with_their_attempt(run_dir: RunDir) -> None:
    run_dir.keep_stacks("first")
    run_dir.begin(1)
    run_dir.keep_stacks("second")
    assert [(run_dir.path / f"attempt-{n}" / "stacks.txt").read_text() for n in (0, 1)] == ["first", "second"]
    assert not list(run_dir.path.rglob("*.partial"))


class TestFind:
    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_by_path_by_name_and_the_newest(self) -> None:
        for _ in range(2):
            made = RunDir.named(Path("runs"), "t", pytest.fail)
            made.make()
            assert find(str(made.path)) == find(made.path.name) == find(None) == made.path

    def test_what_is_no_run(self) -> None:
        with pytest.raises(RequestError, match="there is no run here"):
            find(None)
        Path("runs/other").mkdir(parents=True)
        with pytest.raises(RequestError, match="no such run: other"):
            find("other")


@contextmanager
def _shared(folder: Path) -> Iterator[None]:
    """Somebody looks whether it is held."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


class TestLock:
    def test_it_is_held_as_long_as_the_run_is_alive(self, tmp_path: Path) -> None:
        made = RunDir.named(tmp_path, "t", pytest.fail)
        made.make()
        assert held(made.path)
        made.close()
        assert not held(made.path)

    def test_who_looks_is_not_taken_for_the_launcher(self, tmp_path: Path) -> None:
        with _shared(tmp_path):
            assert not held(tmp_path)
        assert not held(tmp_path / "absent")
