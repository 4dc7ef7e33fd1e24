"""``tflaunch stacks``: where every worker of a run is, now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.errors import RequestError, UnavailableError
from launcher.run_dir import find
from launcher.runs import look, unreachable
from launcher.slurm.job import hand_over
from launcher.visit import ask

# More than the launcher itself gives its hosts to answer (roll_call.py).
_PATIENCE = 10.0


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--full", is_flag=True, help="All stacks of all threads.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def stacks(run: str | None, full: bool, as_json: bool) -> None:
    """Say where every worker of a run is, now. The run goes on.

    RUN is the directory of a run, or its name below runs. Without one it is the newest, runs/latest.
    """
    folder = find(run)
    hand_over(look(folder), "stacks", *["--full"] * full, *["--json"] * as_json)
    told = _ask(folder)
    if as_json:
        import json

        click.echo(json.dumps({"run": str(folder), **told}, indent=2))
    else:
        click.echo(told["full"].rstrip() if full else "\n".join(told["stacks"]))


def _ask(folder: Path) -> dict[str, Any]:
    try:
        told = ask(folder, "stacks", _PATIENCE)
    except OSError:
        found = look(folder, 0.1)
        if found.state == "starting":
            raise UnavailableError(f"{folder}: no workers are running", "it is about to start them") from None
        raise unreachable(found) from None
    if "idle" in told:
        raise UnavailableError(f"{folder}: {told['idle']}", "it is about to start them, or to start them again")
    if "error" in told:
        raise RequestError(f"{folder}: {told['error']}", "its launcher is of another version")
    return told
