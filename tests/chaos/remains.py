"""What is there after a run, seen from outside. Whatever is not as it has to be fails an assertion."""

from __future__ import annotations

import fcntl
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    Weights = Mapping[str, Any]

# What a training leaves in its directory. The file of the lock stays, and nobody holds it.
_THEIRS = re.compile(r"checkpoint|ckpt-\d+|export|lock|[a-z]+\.png")


def weights(directory: Path) -> Weights:
    """All that the newest checkpoint holds of model and optimizer."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(directory))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith(("model", "optimizer"))]
    return {name: reader.get_tensor(name) for name in names}


def assert_equal(found: Weights, calm: Weights) -> None:
    """The weights are those of a training to which nothing has happened."""
    import numpy as np

    assert found.keys() == calm.keys() != set()
    for name, value in calm.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def assert_whole(directory: Path) -> None:
    """No half-written file is left among the checkpoints, and nobody holds the lock."""
    left = [one.name for one in directory.iterdir() if not _THEIRS.fullmatch(one.name)]
    left += [one.name for one in directory.rglob("*") if ".writing" in one.name or one.name.startswith(".")]
    assert left == [], left
    with suppress(FileNotFoundError), (directory / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def assert_lines(run_dir: Path, notes: Path, *, cut: Container[int]) -> None:
    """Every line of every worker is in its file, in order, and whole; but for the last ones of attempts whose agent died.

    It takes along what it has not passed on.
    """
    for note in notes.glob("attempt-*/printed-*"):
        log = run_dir / note.parent.name / f"{note.name.removeprefix('printed-')}.log"
        found = [int(number) for number in re.findall(r"^chaos line (\d+) ", log.read_text(), re.MULTILINE)]
        assert found == list(range(1, len(found) + 1)), log
        if int(note.parent.name.removeprefix("attempt-")) not in cut:
            # The last may have been printed, and not noted.
            assert note.stat().st_size <= len(found) <= note.stat().st_size + 1, log


def assert_ports_free(events: Iterable[Mapping[str, Any]]) -> None:
    """Whatever was leased can be bound; what only waits for packets that are under way (TIME_WAIT) is nobody's."""
    for event in events:
        for port in event.get("ports", []) if event["event"] == "PortsLeased" else []:
            with socket.socket(socket.AF_INET6) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("::", port))


def assert_nothing_strange(run_dir: Path) -> None:
    """The run directory holds what it is documented to hold."""
    known = {"run.json", "events.jsonl", "metrics.jsonl", "agents", "outcome.json"}
    assert {one.name for one in run_dir.iterdir() if not one.name.startswith("attempt-")} <= known
    assert (run_dir.parent / "latest").resolve() == run_dir.resolve()
    assert {one.name for one in run_dir.parent.iterdir() if one.name.startswith(".")} == set()


def shared_memory() -> set[str]:
    """What lies in shared memory and is in use by nobody."""
    mapped = ""
    for process in psutil.pids():
        with suppress(OSError):
            mapped += Path(f"/proc/{process}/maps").read_text()
    return {one.name for one in Path("/dev/shm").glob("*") if str(one) not in mapped}
