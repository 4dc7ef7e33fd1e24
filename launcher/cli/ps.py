"""``tflaunch ps``: the runs, and how each stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.status import ago
from launcher.errors import RequestError
from launcher.run_dir import RUNS
from launcher.runs import Run, below, look, progress, tasks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Of those that are over, so many are shown unasked.
_LAST = 5
_HEAD = ("RUN", "STATE", "TASKS", "STEP", "STARTED", "PID")


@click.command()
@click.option(
    "--run-dir", "bases", multiple=True, metavar="DIR", help="Where runs are kept. Default: runs. May be repeated."
)
@click.option("-a", "--all", "everything", is_flag=True, help=f"Those that are over, too, not only the last {_LAST}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def ps(bases: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """List the runs, the newest first, and how each stands."""
    for base in bases:
        if not Path(base).is_dir():
            raise RequestError(f"no such directory: {base}")
    found = [run for base in map(Path, bases or [str(RUNS)]) for run in _chosen(map(_look, below(base)), everything)]
    if as_json:
        import json

        click.echo(json.dumps([run.as_json() for run in found], indent=2))
    elif not found:
        click.echo(f"no runs below {', '.join(bases or [str(RUNS)])}")
    else:
        click.echo("\n".join(_table([_HEAD, *(_row(run, time.time()) for run in found)])))


def _look(folder: Path) -> Run:
    # One that does not answer is not to hold up the others for long.
    return look(folder, 3.0)


def _chosen(runs: Iterable[Run], everything: bool) -> Iterator[Run]:
    left = _LAST
    for run in runs:
        if everything or run.alive or left:
            left -= not run.alive
            yield run


def _row(run: Run, now: float) -> tuple[str, ...]:
    step = progress(run)
    return (
        run.folder.name,
        run.words,
        str(len(tasks(run.folder)) or "-"),
        "-" if step is None else f"{step['step']:,} ({ago(now - step['time'])})",
        ago(now - run.began) if run.began else "-",
        _or_dash(run.pid),
    )


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
