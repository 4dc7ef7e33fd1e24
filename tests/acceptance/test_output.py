"""What is printed reaches the files byte for byte, and the console as far as it keeps up."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import PATIENCE, TFLAUNCH, Command

NASTY = b"\xff\xfe\x00 no text\r\n10%\r20%\r30%\nlast line without its end"


def test_every_byte_is_in_the_file(tflaunch: Command) -> None:
    script = tflaunch.script(f"import os\nos.write(1, {NASTY!r})\nos.write(2, b'!')")
    ended = tflaunch("run", script)
    assert ended.log("worker-0") == NASTY + b"!"
    assert ended.out == b"worker 0 | \xff\xfe\x00 no text\nworker 0 | 30%\nworker 0 | last line without its end!\n"


def test_a_line_of_10_mb_survives(tflaunch: Command) -> None:
    ended = tflaunch("run", tflaunch.script("print('x' * 10_000_000)"))
    assert ended.log("worker-0") == b"x" * 10_000_000 + b"\n"
    assert ended.out == b"worker 0 | " + ended.log("worker-0")


def test_lines_of_several_workers_stay_whole(tflaunch: Command) -> None:
    script = tflaunch.script("import os\nfor i in range(2000): print(os.environ['TFLAUNCH_TASK'], i, 'y' * 60)")
    ended = tflaunch("run", "-n", "4", script)
    for worker in range(4):
        mine = [line.partition(" | ")[2] for line in ended.lines if line.startswith(f"worker {worker} | ")]
        assert mine == [f"worker:{worker} {i} {'y' * 60}" for i in range(2000)]
    assert len(ended.lines) == 8000


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        ("all", ["worker 0 | fine", "worker 1 | bad"]),
        ("chief", ["worker 0 | fine"]),
        ("failed", ["worker 1 | bad"]),
        ("none", []),
    ],
)
def test_whose_lines_are_shown(tflaunch: Command, choice: str, shown: list[str]) -> None:
    text = """
import os, sys, time
if os.environ["TFLAUNCH_TASK"] == "worker:0":
    print("fine", flush=True); open("said", "w").close(); time.sleep(1000)
while not os.path.exists("said"): time.sleep(0.01)
sys.exit(print("bad") or 1)
"""
    ended = tflaunch("run", "-n", "2", "--output", choice, tflaunch.script(text))
    assert sorted(ended.lines) == shown
    assert "worker 1 failed first" in ended.err
    assert ended.log("worker-0") == b"fine\n"


@pytest.fixture
def nobody_reads() -> Iterator[tuple[int, int]]:
    """A pipe that nobody reads."""
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_a_frozen_console_blocks_nobody(tflaunch: Command, nobody_reads: tuple[int, int]) -> None:
    command = [str(TFLAUNCH), "run", "-n", "2", "--", "sh", "-c", "yes 0123456789 | head -c 60000000"]
    _, frozen = nobody_reads
    subprocess.run(command, cwd=tflaunch.cwd, stdout=frozen, stderr=frozen, check=True, timeout=PATIENCE)
    logs = list((tflaunch.cwd / "runs/latest/attempt-0").iterdir())
    assert [path.stat().st_size for path in logs] == [60_000_000, 60_000_000]


def test_a_reader_that_leaves_ends_nothing(tflaunch: Command) -> None:
    started = tflaunch.start("run", "--", "sh", "-c", "echo first; read line < go; yes 0123456789 | head -c 3000000")
    os.mkfifo(tflaunch.cwd / "go")
    started.until("first")
    assert started.process.stdout is not None
    started.process.stdout.close()
    (tflaunch.cwd / "go").write_text("go\n")
    assert started.process.wait(timeout=PATIENCE) == 0
    assert (tflaunch.cwd / "runs/latest/attempt-0/worker-0.log").stat().st_size == 3_000_006


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds 1 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    yield small
    subprocess.run(["umount", str(small)], check=True)


def test_training_goes_on_when_the_disk_is_full(tflaunch: Command, full_disk: Path) -> None:
    (full_disk / "ballast").write_bytes(b"x" * 600_000)
    os.mkfifo(tflaunch.cwd / "go")
    command = "yes 0123456789 | head -c 600000; read line < go; echo; echo trained"
    started = tflaunch.start("run", "--run-dir", str(full_disk), "--", "sh", "-c", command)
    assert started.process.stderr is not None
    while b"CANNOT WRITE" not in (line := started.process.stderr.readline()):
        assert line
    assert b"No space left on device" in line
    started.until("0123456789", times=600_000 // 11)
    (full_disk / "ballast").unlink()
    (tflaunch.cwd / "go").write_text("go\n")
    started.until("trained")
    assert started.end()[0] == 0
    log = (full_disk / "latest" / "attempt-0" / "worker-0.log").read_bytes()
    gap = re.search(rb"\n\[tflaunch: (\d+) bytes are missing here: the disk was full\]\n", log)
    assert gap is not None
    assert gap.start() + int(gap[1]) == 600_000
    assert log[gap.end() :].endswith(b"trained\n")
