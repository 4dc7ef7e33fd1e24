"""The trainer's command line: flags, over TFLAUNCH_CHECKPOINT_DIR, over the task's own defaults."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from worker.checkpoint.rhythm import Best, Every
from worker.settings import Patience, Settings
from worker.strategy import COMMUNICATIONS, WANTED
from worker.task import PRECISIONS, TaskError
from worker.tasks import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.task import Task

PROGRAM = "python -m worker"


class FlagError(TaskError):
    """A flag is wrong, or there is one too many."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{PROGRAM}: {message}", "--help lists the flags")


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """What was given, by name; ``task`` is the task's name. ``--help`` prints, and ends the process.

    Raises:
        FlagError: something of it cannot be.
    """
    parser = _Parser(
        prog=PROGRAM,
        description="Train in the cluster that TF_CONFIG describes, or alone.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("task", metavar="TASK", help=f"{', '.join(NAMES)}, or FILE.py:NAME for a task of your own")
    _add_training(parser.add_argument_group("training"))
    _add_checkpoints(parser.add_argument_group("checkpoints"))
    _add_machine(parser.add_argument_group("machine"))
    return vars(parser.parse_args(arguments))


def settings(task: Task, given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """What was given, over the environment, over what the task says."""
    chosen = dict(given)
    if directory := environment.get("TFLAUNCH_CHECKPOINT_DIR"):
        chosen.setdefault("checkpoint_dir", directory)
    return replace(Settings.of(task), run=environment.get("TFLAUNCH_RUN", ""), **chosen)


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--epochs", metavar="N", type=_positive, help="how often every example is seen")
    group.add_argument("--steps", metavar="N", type=_positive, help="no more steps than these")
    group.add_argument("--global-batch", metavar="N", type=_positive, help="examples a step, all workers together")
    group.add_argument("--data", metavar="PATH", help="where the examples are, for a task that can be told")
    group.add_argument("--optimizer", metavar="NAME", help="Keras's name of it, such as adam")
    group.add_argument("--learning-rate", metavar="F", type=_positive_number, help="the optimizer's")
    group.add_argument("--clip-norm", metavar="F", type=_positive_number, help="the largest norm of a step's gradient")
    group.add_argument("--micro-batches", metavar="N", type=_positive, help="pieces to work through one by one")
    group.add_argument("--precision", choices=PRECISIONS, help="what is computed in")
    group.add_argument("--seed", metavar="N", type=_natural, help="of the initial weights and the order of examples")
    group.add_argument(
        "--patience",
        metavar="N:MEASURE",
        type=_of(_patience),
        help="stop after N epochs without a better min:val_loss, say: 3:min:val_loss",
    )


def _add_checkpoints(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--checkpoint-dir", metavar="DIR", help="where the chief writes, and resumes from")
    group.add_argument(
        "--save-every",
        metavar="TIME",
        type=_of(Every.parse),
        help="such as '100 steps', '10 min', '1 epoch, 10 min', 'end'",
    )
    group.add_argument("--keep", metavar="N", type=_positive, help="how many of the newest to keep")
    group.add_argument("--keep-best", metavar="MEASURE", type=_of(Best.parse), help="and the best, by min:loss, say")
    group.add_argument("--fresh", action="store_true", help="start over; older checkpoints are moved, not removed")
    group.add_argument("--export", action="store_true", help="write a SavedModel in the end, beside the .keras file")
    group.add_argument("--tensorboard", action="store_true", help="write what TensorBoard shows")


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--strategy", choices=WANTED, help="the tf.distribute strategy")
    group.add_argument("--communication", choices=COMMUNICATIONS, help="who carries the sums between workers")
    group.add_argument("--steps-per-call", metavar="N", type=_positive, help="steps in a call of TensorFlow")
    group.add_argument("--virtual-devices", metavar="N", type=_positive, help="CPU devices to try replicas on")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FlagError(message)


def _patience(text: str) -> Patience:
    epochs, _, measure = text.partition(":")
    if not epochs.isdecimal() or not int(epochs):
        raise ValueError(f"{text!r} is not like '3:min:val_loss'")
    best = Best.parse(measure)
    return Patience(int(epochs), best.metric, best.mode)


def _of(parse: Callable[[str], object]) -> Callable[[str], object]:
    """``parse`` for argparse, which keeps the words of a ValueError to itself."""

    def parsed(text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
