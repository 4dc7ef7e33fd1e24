"""``tflaunch plan``: exactly what ``run`` would do, without doing any of it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from launcher import preflight
from launcher.cli import request

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from launcher.plan import Launch, Plan


@click.command(
    cls=request.RequestCommand, options_metavar="[CLUSTER.json] [OPTIONS] [SCRIPT | -m MODULE | -- COMMAND] [ARGS]..."
)
@click.option("-m", "module", is_flag=True, help="Run a module, as python -m does.")
@click.option("--json", "as_json", is_flag=True, help="The whole plan, for a program.")
@request.options
@click.pass_context
def plan(ctx: click.Context, /, module: bool, as_json: bool, **given: Any) -> None:
    """Show what run would do with the same arguments, and start nothing."""
    from launcher.run import preview

    layers = request.layers(request.command_of(ctx, module=module), ctx.meta.get("file"), **given)
    whole = preview(preflight.checked(*layers))
    if as_json:
        click.echo(json.dumps(whole.as_json(), indent=2))
        return
    _print(whole)


def _print(whole: Plan) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    config = whole.config
    console.print(whole.summary, style="bold")
    for note in whole.notes:
        console.print(note, style="yellow")
    console.print()
    console.print(_tasks(whole))
    console.print()
    _print_processes(console, whole)
    console.print("settings", style="bold")
    console.print(_settings(whole))
    if config.engine != "local":
        console.print(f"\nhosts are not asked by plan: cores, GPUs and addresses are as {config.origins['hosts']} says")


def _print_processes(console: Console, whole: Plan) -> None:
    first = whole.launches[0]
    forked = [launch.task.label for launch in whole.launches if launch.warm is not None]
    has = "imported TensorFlow" if any(launch.finds_tensorflow for launch in whole.launches) else "started Python"
    who = "" if len(forked) == len(whole.launches) else f": {', '.join(forked)}"
    how = f", forked from a process that has {has}{who}" if forked else ""
    console.print(f"every task runs{how}", style="bold")
    console.print(f"  {shlex.join(first.argv)}")
    console.print("with, on top of its host's environment", style="bold")
    console.print(_environment(whole))
    console.print("and its own TF_CONFIG", style="bold")
    for launch in whole.launches:
        console.print(f"  {launch.task.label:<12}{launch.tf_config}")
    console.print()


def _tasks(whole: Plan) -> Table:
    table = _table("task", "host", "cores", "GPUs", "port")
    ports = "any free port" if whole.config.ports is None else f"one of {whole.config.ports[0]}-{whole.config.ports[1]}"
    for launch in whole.launches:
        task = launch.task
        role = "  chief" if task.number == whole.chief and task.job != "chief" else ""
        gpus = "" if task.gpus is None else ",".join(task.gpus) or "none"
        table.add_row(
            task.label + role,
            task.host,
            _numbers(task.cores),
            gpus,
            ports if task.is_dialled else "none, nobody dials it",
        )
    return table


def _environment(whole: Plan) -> Table:
    table = _table("  variable", "value", "from")
    names = dict.fromkeys(name for launch in whole.launches for name in launch.settings)
    for name in names:
        table.add_row(f"  {name}", _values(name, whole.launches), _why(name, whole.launches))
    return table


def _values(name: str, launches: tuple[Launch, ...]) -> str:
    values = [launch.shown_settings().get(name, "-") or '""' for launch in launches]
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def _why(name: str, launches: tuple[Launch, ...]) -> str:
    return next(launch.why[name] for launch in launches if name in launch.why)


def _settings(whole: Plan) -> Table:
    table = _table("  setting", "value", "from")
    for name, origin in whole.config.origins.items():
        if name not in {"env", "forward", "command"}:
            table.add_row(f"  {name}", _shown(getattr(whole.config, name)), origin)
    return table


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case (int(low), int(high)):
            return f"{low}-{high}"
        case tuple():
            return ", ".join(getattr(one, "address", str(one)) for one in value)
    return str(value)


def _numbers(cores: tuple[int, ...]) -> str:
    if not cores:
        return "not set"
    contiguous = cores == tuple(range(cores[0], cores[-1] + 1))
    return f"{cores[0]}-{cores[-1]}" if contiguous and len(cores) > 1 else ",".join(map(str, cores))


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
