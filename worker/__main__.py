"""``python -m worker TASK``: flags and environment into values, then the training, then an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from worker.context import Context, ContextError
from worker.tasks import NAMES, Settings, Task, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


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
    from worker.checkpoint import CheckpointError
    from worker.train import train

    try:
        train(task, settings, context)
    except CheckpointError as error:
        return _complain(str(error), error.exit_status)
    return 0


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
    parser.add_argument("--checkpoint-dir", metavar="DIR", help="where the chief writes checkpoints and resumes from")
    given = vars(parser.parse_args(arguments))
    task: Task = given.pop("task")
    if directory := environment.get("TFLAUNCH_CHECKPOINT_DIR"):
        given.setdefault("checkpoint_dir", directory)
    return task, replace(task.defaults, **given)


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
