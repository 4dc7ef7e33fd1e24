"""What an exception is reported as when it ends a worker: its words, its place, and whether a peer is to blame.

``boot.py`` loads it when there is something to report, and not before: every worker would pay for it.
"""
# ruff: noqa: PTH100, PTH119, PTH120 - a worker that fails at once may not have loaded pathlib

import os

PACKAGE = os.path.dirname(os.path.abspath(__file__))
# As many of the innermost frames as are told: reading the lines of a runaway recursion's would take seconds.
FRAMES = 100
# Of a message's characters: TensorFlow repeats a failure for each peer that it passed, over pages; the frames are worth
# more than those.
MESSAGE = 1024

# What the peers of a failed worker raise, as measured with TensorFlow 2.21: three workers in an all_reduce, one of
# them killed, stopped, ended by an exception or by exit 0. It was UnavailableError each time; the others are what
# TensorFlow's collectives and coordination service cancel or time out pending work with.
PEER_ERRORS = frozenset({"UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError"})
# These have causes of their own too, so the text decides. InvalidArgumentError is not among them: shapes that differ
# make every worker raise one that says "Collective ops is aborted by" (measured too), and there it is the cause.
MIXED_ERRORS = frozenset(
    {"InternalError", "FailedPreconditionError", "ConnectionError", "ConnectionAbortedError", "ConnectionResetError"}
)
PEER_TEXTS = (
    "collective ops is aborted",  # how each of the measured messages opens
    "socket closed",  # gRPC: the peer ended; seen after 0.8 to 1.1 s
    "connection reset by peer",  # gRPC and the kernel: the peer was killed; seen after 0.1 s
    "stopped sending heartbeats",  # coordination service: the peer was stopped, or ended before its first collective
    # Not seen in those runs, but part of TensorFlow 2.21's binaries (gRPC's and the coordination service's words).
    "failed to connect to all addresses",
    "heartbeat timeout",
    "barrier failed",
    "barrier timed out",
    "coordination service",
)


def is_victim(type_name: str, message: str) -> bool:
    """Whether an exception looks like the echo of a peer's failure rather than like a cause."""
    if type_name in PEER_ERRORS:
        return True
    return type_name in MIXED_ERRORS and any(text in message.lower() for text in PEER_TEXTS)


def error_record(error: BaseException) -> "dict[str, object]":
    """``type``, ``module``, ``message``, ``traceback``, ``where``, ``victim`` of an exception."""
    import traceback

    # A SyntaxError's text repeats the place, which has a field of its own.
    message = text_of(error.msg if isinstance(error, SyntaxError) else error)
    short = essence(message)[:MESSAGE]
    return {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "message": short,
        "traceback": "".join(traceback.format_exception(error, limit=-FRAMES)).replace(message, short),
        "where": where(error),
        "victim": any(is_victim(type(one).__name__, text_of(one)) for one in (error, error.__cause__)),
    }


def essence(message: str) -> str:
    """What went wrong in a graph, without where in the graph: the frames have the place, and what comes after them is cut."""
    head, graph, said = message.partition("Graph execution error:")
    if head or not graph:
        return message
    lines = [
        line for line in said.splitlines() if line.strip() and not line.startswith((" ", "\t", "Detected at node"))
    ]
    return "\n".join(lines) or message


def exit_record(leaving: SystemExit) -> "dict[str, object]":
    """``status``, ``text``, ``where``, ``victim`` of a program that ends itself.

    Our own trainer puts more on it: what it has printed, and whether that is the echo of another worker's end.
    """
    code = leaving.code
    status, text = (code & 0xFF, getattr(leaving, "text", "")) if isinstance(code, int) else (1, text_of(code))
    return {"status": status, "text": text, "where": where(leaving), "victim": getattr(leaving, "victim", False)}


def text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ is no reason to lose the record
        return f"<{type(value).__name__} without a text: its __str__ failed>"


def where(error: BaseException) -> str:
    """``train.py:12``: the innermost line that the error passed in the program's own code, or else in any code."""
    places: list[tuple[int, int, str, int]] = []
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        places.append((ownership(file), len(places), file, trace.tb_lineno))
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        places.append((ownership(error.filename), len(places), error.filename, error.lineno or 0))
    *_, file, line = max(places, default=(0, 0, "", 0))
    return f"{os.path.basename(file)}:{line}" if file else ""


def ownership(file: str) -> int:
    """How much a frame's file is the program's own: 2 if it is, 1 if it is this package's, 0 for all others."""
    if file.startswith(PACKAGE + os.sep):
        return 1
    # tf.function runs the program's functions from copies that AutoGraph wrote into the temporary directory.
    foreign = (os.path.dirname(os.__file__) + os.sep, "site-packages", "dist-packages", "__autograph_generated_file")
    return 0 if file.startswith("<") or any(part in file for part in foreign) else 2
