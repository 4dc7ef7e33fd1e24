"""A run that is alive, watched from another process: what its door tells is shown on a console here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.visit import frames

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from launcher.console import Console


def watch(line: socket.socket, console: Console, *, last: str = "ended") -> Mapping[str, Any]:
    """Show all that comes until the run has ended; or has ``started``, where that is enough.

    Returns:
        The message that says so, with ``exit_status``, ``reason`` and ``hint`` of one that has ended, and whether the console
        was ``told`` of it; empty when the launcher hung up without a word.

    Raises:
        TimeoutError: nothing comes within the connection's patience.
    """
    cut: set[int] = set()
    for task, frame in frames(line):
        match frame:
            case bytes(data):
                whole = _from_a_line_on(data) if task in cut else data
                cut.discard(task)
                console.output(task, whole)
            case {"do": what} if what in {"ended", last}:
                return frame
            case _:
                cut |= _hear(frame, console)
        console.show()
        if console.deserted:
            raise BrokenPipeError
    return {}


def _hear(frame: Mapping[str, Any], console: Console) -> set[int]:
    """Take in a message; returns the tasks whose output begins somewhere in a line."""
    match frame:
        case {"do": "run", "tasks": [*labels], "chief": int(chief)}:
            console.expect(dict(enumerate(labels)), chief)
            return set(range(len(labels))) if frame.get("cut") else set()
        case {"do": "finished", "task": int(task)}:
            console.finish(task)
        case {"do": "said", "text": str(text), "alarm": bool(alarm)}:
            console.say(text, alarm=alarm)
        case {"do": "skipped", "bytes": int(count)}:
            console.say(f"not shown here, as it came too fast: {count:,} bytes; the log files have them")
    return set()


def _from_a_line_on(data: bytes) -> bytes:
    return data.partition(b"\n")[2]
