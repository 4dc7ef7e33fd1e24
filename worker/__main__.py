"""``python -m worker TASK``: flags and environment into values, then the training, then an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from worker.context import Context, ContextError, report
from worker.rhythm import Best, Every
from worker.tasks import NAMES, Settings, Task, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    task, settings = parse(arguments, environment)
    try:
        context = Context.from_environment(environment)
    except ContextError as error:
        return _complain(str(error), 2)
    if context.parameter_servers:
        return _complain(f"{task.name} trains without parameter servers: take ps out of the cluster", 2)
    if not context.trains:
        print(f"{context}: {task.name} trains on the chief and the workers alone, nothing to do here")
        return 0
    if not find_spec("tensorflow"):
        return _complain("tflaunch's trainer needs TensorFlow: install tflaunch[tensorflow]", 69)
    if context.size > 1:
        print(context, flush=True)
    # Our models are Keras models on TensorFlow, whatever backend the user's own scripts have chosen.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _without_chatter():
        import tensorflow as tf

        # Cached: it is here that a TensorFlow built for GPUs complains of a machine without.
        tf.config.list_physical_devices("GPU")
    return _train(task, settings, context)


def _train(task: Task, settings: Settings, context: Context) -> int:
    from worker.saving import CheckpointError
    from worker.train import train

    try:
        train(task, settings, context)
    except CheckpointError as error:
        if not context.is_chief:
            _end_unheard(error, error.exit_status)
        return _complain(str(error), error.exit_status)
    return 0


def _end_unheard(error: Exception, status: int) -> NoReturn:
    """End for what the chief, which fails of it at the same moment, says for all.

    The launcher hears that this one is a victim, and nothing that would come later: neither an exit nor TensorFlow's words
    on the loss of its peers.
    """
    report("error", type=type(error).__name__, message=str(error), victim=True)
    sys.stdout.flush()
    os._exit(status)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[Task, Settings]:
    """Flags, over TFLAUNCH_CHECKPOINT_DIR, over the task's own defaults. A bad flag ends the process with status 2."""
    parser = _Parser(
        prog="python -m worker",
        description="Train in the cluster that TF_CONFIG describes, or alone.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("task", metavar="TASK", type=_task, help=f"one of: {', '.join(NAMES)}")
    parser.add_argument("--epochs", metavar="N", type=_positive, help="how often every example is seen")
    parser.add_argument("--global-batch", metavar="N", type=_positive, help="examples a step, all workers together")
    parser.add_argument("--learning-rate", metavar="F", type=_positive_number, help="Adam's learning rate")
    parser.add_argument("--seed", metavar="N", type=_natural, help="of the initial weights and the order of examples")
    _add_checkpoints(parser)
    given = vars(parser.parse_args(arguments))
    task: Task = given.pop("task")
    if directory := environment.get("TFLAUNCH_CHECKPOINT_DIR"):
        given.setdefault("checkpoint_dir", directory)
    if environment.get("TFLAUNCH_ATTEMPT", "0") != "0":
        # The first attempt has started over; this one goes on from what that has saved.
        given.pop("fresh", None)
    return task, replace(task.defaults, **given)


def _add_checkpoints(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint-dir", metavar="DIR", help="where the chief writes checkpoints and resumes from")
    parser.add_argument(
        "--save-every",
        metavar="TIME",
        type=_of(Every.parse),
        help="such as '100 steps', '10 min', '1 epoch, 10 min', 'end'",
    )
    parser.add_argument("--keep", metavar="N", type=_positive, help="how many of the newest checkpoints to keep")
    parser.add_argument(
        "--keep-best", metavar="MEASURE", type=_of(Best.parse), help="keep the best one too, such as by min:loss"
    )
    parser.add_argument("--fresh", action="store_true", help="start over; older checkpoints are moved, not removed")
    parser.add_argument("--export", action="store_true", help="write a SavedModel in the end, beside the .keras file")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line: behind a launcher, a page of usage would come once from every worker."""
        self.exit(2, f"{self.prog}: {message} (--help lists the flags)\n")


def _task(name: str) -> Task:
    if name in NAMES:
        return named(name)
    from difflib import get_close_matches

    nearest = get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"there is {', '.join(NAMES)}"
    raise argparse.ArgumentTypeError(f"no task is called {name!r}; {hint}")


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


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Drop what TensorFlow writes to stderr, unless it fails or the user chose a TF_CPP_MIN_LOG_LEVEL.

    TensorFlow 2.21 logs several lines while it loads whatever that level is: they come before its logging is set up.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    import tempfile

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _complain(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
