"""``tflaunch train TASK``: ``run`` with the trainer that comes with tflaunch."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli import request
from launcher.cli.run import execute


@click.command(context_settings={"ignore_unknown_options": True}, options_metavar="[OPTIONS]")
@click.argument("words", metavar="[cluster.json] TASK", nargs=-1, required=True, type=click.UNPROCESSED)
@request.options
@request.into
@request.detach
def train(words: tuple[str, ...], into: str | None, detach: bool, **given: Any) -> int:
    """Run one of the trainings that come with tflaunch, digits, linear or mnist, or a task of your own.

    \b
    tflaunch train digits -n 2
    tflaunch train digits -n 2 --epochs 5
    tflaunch train my_task.py:task -n 4
    tflaunch train cluster.json digits

    Options that are not listed here are the training's own; `python -m worker --help` tells them.
    """
    file, words = (words[0], words[1:]) if words[0].endswith(".json") else (None, words)
    if not words:
        raise click.UsageError(f"name a training after {file}")
    task, *args = words
    layers = request.layers({"task": task, **({"args": args} if args else {})}, file, **given)
    return execute(*layers, into=into, detach=detach)
