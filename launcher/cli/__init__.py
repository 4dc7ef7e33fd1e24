"""The command line: one command to a file, loaded when it is called."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from launcher.errors import Interrupted, TflaunchError
from launcher.version import __version__

_COMMANDS = {
    "run": "Run a script, a module or any command as a cluster.",
    "train": "Run one of the trainings that come with tflaunch.",
    "plan": "Show what run would do, and start nothing.",
    "explain": "Say what a TF_CONFIG means, and what is wrong with it.",
    "init": "Write a cluster.json to start from.",
    "schema": "Print the JSON Schema of cluster.json.",
}


class _Commands(click.Group):
    """Imports a command's module only when it is the one: each costs time that every worker would wait for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        import importlib

        command: click.Command = getattr(importlib.import_module(f"launcher.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tflaunch")
def tflaunch() -> None:
    """Turn -n 4, or a list of hosts, into a running, supervised TensorFlow cluster."""


def main() -> NoReturn:
    """The console script."""
    if sys.platform != "linux":
        sys.exit("tflaunch runs on Linux (on Windows, inside WSL)")
    _open_standard_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _status() -> int:
    """Run the command. Every error of ours ends in its message and its exit status, without a traceback."""
    try:
        status: Any = tflaunch.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _let_signals_end()
        click.echo("tflaunch: interrupted by SIGINT", err=True)
        return 130
    except TflaunchError as error:
        _let_signals_end()
        click.echo(f"tflaunch: {error}", err=True)
        return error.exit_status
    except BrokenPipeError:
        # As a shell tells of `tflaunch plan | head`: 128 + SIGPIPE.
        return 141
    return status if isinstance(status, int) else 0
