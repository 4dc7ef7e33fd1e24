"""``tflaunch check``: whether hosts are ready for a run, before there is one."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from launcher import keys, preflight
from launcher.cli import request
from launcher.errors import UnavailableError
from launcher.layers import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from launcher.checkup import State
    from launcher.inspection import Inspection

_COLOURS = {"ok": "green", "warn": "yellow", "bad": "red"}
_MARKS = {"ok": "", "warn": "? ", "bad": "! "}
# The checks in the order in which they are shown, as their columns are called.
_COLUMNS = {
    "agent": "agent",
    "python": "python",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "program": "program",
    "gpus": "GPUs",
    "cores": "cores",
    "memory": "free memory",
    "disk": "free disk",
    "clock": "clock",
    "peers": "peers",
    "left": "left over",
}
_WIDEST = 1000
# Where nobody says what is to be run, hosts are held against what a training needs.
_ANY = Layer("tflaunch check", {"task": "digits"}, {"task": "tflaunch check"})


@click.command(
    cls=request.RequestCommand, options_metavar="[CLUSTER.json] [OPTIONS] [SCRIPT | -m MODULE | -- COMMAND] [ARGS]..."
)
@click.option("-m", "module", is_flag=True, help="Run a module, as python -m does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--clean", is_flag=True, help="End and delete what earlier runs have left, and nothing else.")
@request.options
@click.pass_context
def check(ctx: click.Context, /, module: bool, as_json: bool, clean: bool, **given: Any) -> int:
    """Check whether all hosts are ready for a run with the same arguments, and reach each other.

    Nothing is run, and nothing is changed but with --clean. Status 0: a run could start; 69: something would stop it.
    With the engine slurm, outside of an allocation, Slurm's partitions are held against what would be asked of them.
    """
    from launcher.inspection import inspect

    layers = request.layers(request.command_of(ctx, module=module), ctx.meta.get("file"), **given)
    if preflight.engine_of(*layers) == "slurm" and "SLURM_JOB_ID" not in os.environ:
        from launcher.cli.check_slurm import report

        return report(preflight.submittable(*_with_command(layers)), as_json=as_json)
    inspection = inspect(preflight.checked(*_with_command(layers)), clean=clean)
    if as_json:
        click.echo(json.dumps(_as_json(inspection), indent=2))
    else:
        _print(inspection)
    return 0 if inspection.fine else UnavailableError.exit_status


def _with_command(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    if any(not each.values.keys().isdisjoint(keys.COMMANDS) for each in layers):
        return layers
    return (_ANY, *layers)


def _as_json(inspection: Inspection) -> dict[str, object]:
    return {
        "fine": inspection.fine,
        "findings": [finding._asdict() for finding in inspection.findings],
        "obstacles": [obstacle._asdict() for obstacle in inspection.obstacles],
        "dialled": [one._asdict() for host in inspection.seen for one in host.dialled or ()],
        "left": {host.host: host.left for host in inspection.seen if host.left is not None},
        "cleaned": {host.host: list(host.cleaned) for host in inspection.seen if host.cleaned},
    }


def _print(inspection: Inspection) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    across, down = (_table(inspection, down=down) for down in (False, True))
    width = console.measure(across, options=console.options.update(width=_WIDEST)).maximum
    # A host to a line is for many hosts, and for grep; on a terminal that is too narrow for that, a check to a line.
    table = down if console.is_terminal and width > console.width else across
    wide = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=max(width, console.width))
    wide.print(table)
    _print_problems(console, inspection)


def _table(inspection: Inspection, *, down: bool) -> Table:
    """Hosts by checks, or checks by hosts (``down``)."""
    from rich.table import Table
    from rich.text import Text

    found = {(finding.host, finding.check): finding for finding in inspection.findings}
    shown = [check for check in _COLUMNS if any((host.host, check) in found for host in inspection.seen)]
    rows = [[Text(""), *(Text(_COLUMNS[check], "dim") for check in shown)]]
    for host in inspection.seen:
        cells = [found.get((host.host, check)) for check in shown]
        words = [Text(_MARKS[one.state] + one.said, _COLOURS[one.state]) if one else Text("-", "dim") for one in cells]
        rows.append([Text(host.host), *words])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for row in zip(*rows, strict=True) if down else rows:
        table.add_row(*row)
    return table


def _problems(inspection: Inspection) -> Iterator[tuple[State, str, str]]:
    """How bad, what, and what to do: the worst first, and what several hosts have in common once."""
    alike: dict[tuple[State, str, str], list[str]] = {}
    for finding in inspection.findings:
        if finding.why:
            alike.setdefault((finding.state, finding.why, finding.remedy), []).append(finding.host)
    found: list[tuple[State, str, str]] = [("bad", obstacle.reason, obstacle.hint) for obstacle in inspection.obstacles]
    for (state, why, remedy), hosts in alike.items():
        found.append((state, f"{', '.join(hosts)}: {why}" if all(hosts) else why, remedy))
    yield from sorted(found, key=lambda problem: problem[0])


def _print_problems(console: Console, inspection: Inspection) -> None:
    problems = [*_problems(inspection)]
    for state, why, remedy in problems:
        console.print(f"\n{_MARKS[state]}{why}", style=_COLOURS[state])
        if remedy:
            console.print(f"  {remedy}")
    stopping = sum(state == "bad" for state, *_ in problems)
    words = f"{stopping} thing{'s' * (stopping > 1)} would stop a run" if stopping else "a run can start"
    console.print(f"\n{words}", style=_COLOURS["bad" if stopping else "ok"])
