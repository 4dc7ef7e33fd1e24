"""``tflaunch submit``: a run as a job of Slurm's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from launcher import preflight
from launcher.cli import request
from launcher.slurm.controller import ourselves
from launcher.slurm.script import ARRAY_NUMBER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.config import ClusterConfig

# What the job's script has said already, or is said to sbatch alone.
_OURS = {"dry_run", "module"}
_FOR_RUN = {"slurm_requeue", "slurm_until_done"}


@click.command(
    cls=request.RequestCommand, options_metavar="[CLUSTER.json] [OPTIONS] [SCRIPT | -m MODULE | -- COMMAND] [ARGS]..."
)
@click.option(
    "-m", "module", is_flag=True, help="Run a module, as python -m does; `-m worker TASK` is our own trainer."
)
@request.submit_options
@click.option("--dry-run", is_flag=True, help="Print the job's script, and submit nothing.")
@click.pass_context
def submit(ctx: click.Context, /, module: bool, dry_run: bool, **given: Any) -> None:
    """Submit a run to Slurm, as a job, and print the job's id.

    \b
    tflaunch submit -N 2 -n 4 -t 4:00:00 -p gpu --gpus-per-node 2 train.py
    tflaunch submit cluster.json --requeue
    tflaunch submit cluster.json --dry-run

    Options are those of run, and Slurm's. The job goes on in the directory of the run, whose name is printed, too;
    ps, status, logs and stop know it from now on.
    """
    layers = request.layers(request.command_of(ctx, module=module), ctx.meta.get("file"), **given)
    config = preflight.submittable(*layers)
    from launcher.run_dir import RunDir
    from launcher.slurm import job, script

    run_dir = RunDir.named(Path(config.run_dir), config.name, _warn)
    written = script.make(config, _command(ctx, config, run_dir.path), str(run_dir.path))
    if dry_run:
        click.echo(str(written), nl=False)
        return
    job_id = job.submit(run_dir, str(written), script.numbers(config.slurm.array))
    print(f"submitted; tflaunch ps, status, logs -f and stop know it as {run_dir.path.name}", file=sys.stderr)
    click.echo(job_id)


def _command(ctx: click.Context, config: ClusterConfig, folder: Path) -> list[str]:
    """What was typed, as a run in the job's allocation."""
    into = f"{folder}-{ARRAY_NUMBER}" if config.slurm.array else str(folder)
    file = [ctx.meta["file"]] if "file" in ctx.meta else []
    words = ["--"] * (ctx.meta.get("dashes", False) and not ctx.params["module"]) + ctx.meta["command"]
    module = ["-m"] if ctx.params["module"] else []
    return [ourselves(), "run", *file, "--engine=slurm", f"--into={into}", *_options(ctx), *module, *words]


def _options(ctx: click.Context) -> Iterator[str]:
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name in _OURS or (name.startswith("slurm_") and name not in _FOR_RUN):
            continue
        if ctx.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        assert isinstance(parameter, click.Option)  # noqa: S101 - the command has no arguments
        flag = parameter.opts[-1]
        if isinstance(value, bool):
            yield flag if value else parameter.secondary_opts[-1]
        else:
            yield from (f"{flag}={one}" for one in (value if isinstance(value, tuple) else (value,)))


def _warn(text: str) -> None:
    print(text, file=sys.stderr)
