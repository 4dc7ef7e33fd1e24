"""The console script: from the first moment on, every end is told in a line, with its exit status."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

from launcher.errors import Interrupted, TflaunchError

# SIGUSR1 is a scheduler's warning that the time is nearly over.
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Some 10 MB of them.
NEW_OBJECTS = 50_000


def main() -> NoReturn:
    """Run the command that was asked for, and end with its status."""
    # What is imported stays: to look through it for garbage each 700 objects takes 4 of the 100 ms that a run of nothing takes.
    gc.set_threshold(NEW_OBJECTS)
    if sys.platform != "linux":
        sys.exit("tflaunch runs on Linux (on Windows, inside WSL)")
    _open_standard_streams()
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            # Until the loop takes them over: whatever is under way ends in its own words, not in silence.
            signal.signal(number, _interrupt)
    status = _status()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # Nothing is left to do, and taking the interpreter apart in good order would take longer than starting a worker.
    os._exit(status)


def _open_standard_streams() -> None:
    """Under ``tflaunch ... >&-`` the next file opened would become standard output, and receive it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    # Python has no stream for a descriptor that was closed when it started. And an argument that is no UTF-8 must not
    # fail to be shown: its escapes will do.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise Interrupted(number)


def _let_signals_end() -> None:
    """From here on there are only last words, which a frozen terminal may hold up."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)


def _status() -> int:
    """Run the command. Every error of ours ends in its message and its exit status, without a traceback."""
    try:
        return _command()
    except TflaunchError as error:
        _let_signals_end()
        print(f"tflaunch: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # As a shell tells of `tflaunch plan | head`: 128 + SIGPIPE.
        return 141


def _command() -> int:
    # Imported here, because it takes a moment, in which somebody may press Ctrl-C.
    import click

    from launcher.cli.commands import tflaunch

    try:
        status: object = tflaunch.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise Interrupted(signal.SIGINT) from None
    return status if isinstance(status, int) else 0
