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
                console.output(task, _from_a_line_on(data, task, cut))
            case {"do": what} if what in {"ended", last}:
                return frame
            case _:
                _hear(frame, console, cut)
        console.show()
        if console.deserted:
            raise BrokenPipeError
    return {}


def _hear(frame: Mapping[str, Any], console: Console, cut: set[int]) -> None:
    match frame:
        case {"do": "run", "tasks": [*labels], "chief": int(chief)}:
            console.expect(dict(enumerate(labels)), chief)
            cut.clear()
            cut.update(frame.get("cut", ()))
        case {"do": "finished", "task": int(task)}:
            console.finish(task)
        case {"do": "said", "text": str(text), "alarm": bool(alarm)}:
            console.say(text, alarm=alarm)
        case {"do": "skipped", "bytes": int(count)}:
            console.say(f"not shown here, as it came too fast: {count:,} bytes; the log files have them")


def _from_a_line_on(data: bytes, task: int, cut: set[int]) -> bytes:
    """Without the rest of a line whose beginning is not to be had: of these tasks, that comes first."""
    if task not in cut:
        return data
    _, end, rest = data.partition(b"\n")
    if end:
        cut.discard(task)
    return rest
