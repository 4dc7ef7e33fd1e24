"""``tflaunch train TASK``: ``run`` with the trainer that comes with tflaunch."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli import request
from launcher.cli.run import execute


@click.command(context_settings={"ignore_unknown_options": True}, options_metavar="[OPTIONS]")
@click.argument("task")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@request.options
def train(task: str, args: tuple[str, ...], **given: Any) -> int:
    """Run one of the trainings that come with tflaunch, digits, linear or mnist, or a task of your own.

    \b
    tflaunch train digits -n 2
    tflaunch train digits -n 2 --epochs 5
    tflaunch train my_task.py:task -n 4

    Options that are not listed here are the training's own; `python -m worker --help` tells them.
    """
    return execute(*request.layers({"task": task, **({"args": list(args)} if args else {})}, None, **given))
