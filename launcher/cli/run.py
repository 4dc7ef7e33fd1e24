"""``tflaunch run``: the command that everything else is there for."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher import preflight
from launcher.cli import request
from launcher.errors import Interrupted
from launcher.layers import Layer

if TYPE_CHECKING:
    from launcher.config import ClusterConfig
    from launcher.console import Console
    from launcher.run import Background


@click.command(
    cls=request.RequestCommand, options_metavar="[CLUSTER.json] [OPTIONS] [SCRIPT | -m MODULE | -- COMMAND] [ARGS]..."
)
@click.option("-m", "module", is_flag=True, help="Run a module, as python -m does.")
@request.options
@request.requeue
@request.until_done
@request.into
@request.detach
@click.pass_context
def run(ctx: click.Context, /, module: bool, into: str | None, detach: bool, **given: Any) -> int:
    """Run a script, a module or any command as a cluster.

    \b
    tflaunch run -n 4 train.py --lr 0.1
    tflaunch run -n 4 -m package.module ...
    tflaunch run -n 4 -- any command
    tflaunch run cluster.json

    Options come before the script; what follows it is the script's own. They override the file.
    """
    if into is None and (given["slurm_requeue"] or given["slurm_until_done"]):
        raise click.UsageError("a run that goes on in another job does so in one directory: name it with --into", ctx)
    layers = request.layers(request.command_of(ctx, module=module), ctx.meta.get("file"), **given)
    return execute(*layers, into=into, detach=detach)


def execute(*layers: Layer, into: str | None, detach: bool) -> int:
    """Run what the layers ask for, on the terminal or in the background; returns the exit status."""
    folder = into and Path(into)
    config = preflight.checked(*layers)
    if not detach:
        return _conduct(config, into=folder or None)
    from launcher.detach import leave

    return leave(config, folder or None, lambda background: _conduct(config, background))


def _conduct(config: ClusterConfig, background: Background | None = None, into: Path | None = None) -> int:
    from launcher.agent import guard, kernel, strays
    from launcher.console import Console
    from launcher.run import run as run_cluster

    # Should guard and loop of the agent be killed together, what they leave comes to us. Children that this process had
    # before it became tflaunch (a shell's exec) are not ours to end.
    ours = not strays.children()
    kernel.adopt_orphans()
    kernel.keep_memory()
    try:
        with Console(config.output) as console:
            status = 0
            try:
                outcome = run_cluster(config, console, background, into)
                status = outcome.verdict.exit_status
                console.tell(outcome)
            except Interrupted as error:
                status = error.exit_status
                raise
            finally:
                if config.engine == "slurm" and into is not None:
                    _go_on(config, into, console, status)
    finally:
        if ours:
            guard.end_descendants()
    return outcome.verdict.exit_status


def _go_on(config: ClusterConfig, folder: Path, console: Console, status: int) -> None:
    from launcher.slurm import job

    # The outcome that lies there may be that of an earlier job, as long as this one has not come to keeping its own.
    if status != 128 + job.WARNING:
        return
    # Slurm ends what runs of a job that is queued again, and would end us before we have said so.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if said := job.follow_up(config, folder, os.environ):
        console.say(said)
