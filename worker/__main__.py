"""``python -m worker TASK``: flags and environment into values, then the training, then an exit status."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from worker import flags
from worker.context import Context, ContextError, is_launched, report
from worker.task import TaskError, find
from worker.tasks import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


# Longer than a worker that starts at the same time takes to find out the same.
_FOR_THE_CHIEF = 10.0


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    try:
        context = Context.from_environment(environment)
    except ContextError as error:
        return _complain(str(error), 2)
    try:
        return _main(arguments, environment, context)
    except TaskError as error:
        _end(error, error.exit_status, context, agreed=False)


def _main(arguments: Sequence[str], environment: Mapping[str, str], context: Context) -> int:
    given = flags.parse(arguments)
    name = given.pop("task")
    if context.parameter_servers:
        raise TaskError(f"{name} trains without parameter servers: take ps out of the cluster")
    if not context.trains:
        print(f"{context}: {name} trains on the chief and the workers alone, nothing to do here")
        return 0
    if not find_spec("tensorflow"):
        return _complain("tflaunch's trainer needs TensorFlow: install tflaunch[tensorflow]", 69)
    if context.size > 1:
        print(context, flush=True)
    return _train(name, given, environment, context)


def _train(name: str, given: Mapping[str, Any], environment: Mapping[str, str], context: Context) -> int:
    # Our trainings are of Keras models on TensorFlow, whatever backend the user's own scripts have chosen.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # They do not use what is repaired of Keras for those who call fit.
    os.environ.setdefault("TFLAUNCH_KERAS_REPAIR", "0")
    with _without_chatter():
        import tensorflow as tf

        # Cached: it is here that a TensorFlow built for GPUs complains of a machine without.
        tf.config.list_physical_devices("GPU")
    from worker.checkpoint.saving import CheckpointError
    from worker.preemption import Preempted
    from worker.train import NotANumberError, train

    task = find(name, NAMES)
    try:
        train(task, flags.settings(task, given, environment), context)
    except (CheckpointError, NotANumberError) as error:
        _end(error, error.exit_status, context, agreed=True)
    except Preempted as stop:
        # Said already, and nobody's fault.
        raise _Leaving(stop.exit_status, str(stop), victim=False) from None
    return 0


class _Leaving(SystemExit):
    """An end that all workers come to alike: ``boot.py`` tells the launcher ``text``, and whether it is an echo."""

    def __init__(self, status: int, text: str, *, victim: bool) -> None:
        super().__init__(status)
        self.text = text
        self.victim = victim


def _end(error: Exception, status: int, context: Context, *, agreed: bool) -> NoReturn:
    """Say it once for the whole cluster.

    The chief prints it. The others tell the launcher, in case they are alone with it; where there is no launcher they
    print it too, unless all workers are ``agreed`` on it.
    """
    if context.is_chief or not (agreed or is_launched()):
        _complain(str(error), status)
    elif is_launched():
        # The launcher ends all workers when the first one fails: the chief is to be that one, and to have spoken.
        report("exit", status=status, text=str(error), where="", victim=True)
        time.sleep(_FOR_THE_CHIEF)
    raise _Leaving(status, str(error), victim=not context.is_chief) from None


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
