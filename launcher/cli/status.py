"""``tflaunch status``: how a run stands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from launcher.run_dir import find
from launcher.runs import Run, look, progress
from launcher.slurm.job import hand_over

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def status(run: str | None, as_json: bool) -> None:
    """Say how a run stands: its tasks, how far it is, and how it ended if it is over.

    RUN is the directory of a run, or its name below runs. Without one it is the newest, runs/latest.
    """
    found = look(find(run))
    if found.entry is not None:
        hand_over(found, "status", *(["--json"] if as_json else []))
    if as_json:
        import json

        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        click.echo("\n".join(_lines(found, time.time())))


def _lines(run: Run, now: float) -> Iterator[str]:
    yield " · ".join([run.folder.name, run.words, *_about(run, now)])
    if (step := progress(run)) is not None:
        yield in_words(step, now)
    if run.state in {"done", "failed", "stopped"}:
        yield from filter(None, [*_cause(run.told), run.told["hint"], *_ends(run.told["tasks"])])
    elif run.state == "silent":
        yield f"its launcher does not answer; somebody may have stopped it: kill -CONT {run.pid}"
    elif run.entry is not None:
        yield run.entry.words
    elif run.state == "lost":
        yield "its launcher is gone and left no word; no worker outlives it"
    else:
        yield from _tasks(run.told.get("tasks", ()), now)
    if left_out := run.told.get("left_out"):
        yield f"without {', '.join(left_out)}"


def _about(run: Run, now: float) -> Iterator[str]:
    if run.began:
        yield f"started {ago(now - run.began)}"
    if run.pid is not None:
        yield f"pid {run.pid}"
    if run.told.get("attempt"):
        yield f"restart {run.told['attempt']} of {run.told['max_restarts']}"
    elif isinstance(run.told.get("restarts"), list) and run.told["restarts"]:
        count = len(run.told["restarts"])
        yield f"after {count} restart{'s' if count > 1 else ''}"


def _cause(outcome: Mapping[str, Any]) -> Iterator[str]:
    cause = f"{outcome['cause']} failed first: " if outcome["cause"] else ""
    yield f"{cause}{outcome['reason']}"


def _ends(tasks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    width = max((len(task["task"]) for task in tasks), default=0)
    for task in tasks:
        how = f"signal {task['signal']}" if task["signal"] is not None else f"status {task['status']}"
        known = task["signal"] is not None or task["status"] is not None
        yield f"  {task['task']:<{width}}  {task['host']}  {task['fate']}{f' ({how})' if known else ''}"


def _tasks(tasks: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    width = max((len(task["task"]) for task in tasks), default=0)
    for task in tasks:
        pid = f"  pid {task['pid']}" if task["pid"] else ""
        lasts = task["state"] in {"ordered", "running", "stopped"}
        when = f"for {span(now - task['since'])}" if lasts else ago(now - task["since"])
        yield f"  {task['task']:<{width}}  {task['host']}{pid}  {task['state']} {when}"


def in_words(step: Mapping[str, Any], now: float) -> str:
    """How far it is."""
    parts = [f"step {step['step']:,}" + (f" of {step['of']:,}" if isinstance(step.get("of"), int) else "")]
    if step.get("rate"):
        parts.append(f"{step['rate']:,.3g} steps/s")
    if isinstance(step.get("loss"), float):
        parts.append(f"loss {step['loss']:.4f}")
    return " · ".join([*parts, ago(now - step["time"])])


def ago(seconds: float) -> str:
    """So long before now."""
    return f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """So long, in the unit that says most."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
