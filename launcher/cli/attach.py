"""``tflaunch attach``: what a run prints, from now on."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from launcher.console import Console
from launcher.errors import Interrupted, UnavailableError
from launcher.run_dir import RUNS, find, named
from launcher.runs import PATIENCE, alive, look, reach, unreachable
from launcher.slurm.job import hand_over
from launcher.visit import follow
from launcher.watching import watch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--output", type=click.Choice(["all", "chief", "none"]), default="all", help="Whose lines to show.")
def attach(run: str | None, output: str) -> int:
    """Show what a run prints, the last lines first, until it ends or you leave with Ctrl-C; the run goes on then.

    RUN is the directory of a run, or its name below runs. Without one it is the newest that is alive. The exit status is that
    of the run.
    """
    folder = find(run) if run else alive(RUNS)
    hand_over(reach(folder), "attach", f"--output={output}")
    try:
        line = follow(folder, PATIENCE)
    except OSError:
        raise unreachable(look(folder)) from None
    with closing(line), Console(output) as console:  # type: ignore[arg-type] # click has seen to that
        try:
            ended = watch(line, console)
        except TimeoutError:
            raise unreachable(look(folder)) from None
        except Interrupted as error:
            if error.exit_status != 128 + signal.SIGINT:
                raise
            console.say(f"detached; the run goes on (tflaunch attach {named(folder)})")
            return 0
    if not ended:
        ended = _left(folder)
    if not ended.get("told"):
        click.echo("\n  ".join(filter(None, [f"tflaunch: {ended['reason']}", ended["hint"]])), err=True)
    status: int = ended["exit_status"]
    return status


def _left(folder: Path) -> Mapping[str, Any]:
    """What a launcher that hung up without a word has left: for one who reads too slowly the end comes too soon."""
    found = look(folder)
    if found.alive:
        raise UnavailableError(f"{folder}: too many watch it")
    if found.state == "lost":
        raise unreachable(found)
    return found.told
