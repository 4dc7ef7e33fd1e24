"""``tflaunch stop``: have a run end."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from launcher.run_dir import RUNS, find
from launcher.runs import PATIENCE, alive, look, reach, unreachable
from launcher.visit import ask, follow, frames

if TYPE_CHECKING:
    from collections.abc import Mapping
    from socket import socket


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--now", is_flag=True, help="Kill the workers, without the time to save their work.")
def stop(run: str | None, now: bool) -> None:
    """Have a run end as SIGTERM to its launcher would, and wait until it has.

    RUN is the directory of a run, or its name below runs. Without one it is the newest that is alive.
    """
    folder = find(run) if run else alive(RUNS)
    if (found := look(folder)).entry is not None:
        from launcher.slurm import job

        click.echo(job.end(folder, found.entry, now=now))
        return
    reach(folder)
    try:
        with closing(follow(folder, PATIENCE)) as line:
            ask(folder, "stop", PATIENCE, now=now)
            ended = _ended(line)
    except OSError:
        raise unreachable(look(folder)) from None
    ended = ended or look(folder).told
    if "exit_status" not in ended:
        raise unreachable(look(folder))
    click.echo(f"{folder.name} has ended with status {ended['exit_status']}: {ended['reason']}")


def _ended(line: socket) -> Mapping[str, Any]:
    """Wait until the run is over; nothing when its launcher has gone without a word."""
    return next((frame for _, frame in frames(line) if isinstance(frame, dict) and frame["do"] == "ended"), {})
