"""Repairs Keras 3 where this process trains together with others. ``boot.py`` calls it once Keras is imported.

It replaces functions of Keras that are at fault, if they are those that the replacements were tested with; otherwise it says
so and leaves Keras as it is. It costs nothing to those who do not need it: TensorFlow is imported only to repair.
"""

from __future__ import annotations

import functools
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ..context import Context

if TYPE_CHECKING:
    from types import ModuleType

SWITCH = "TFLAUNCH_KERAS_REPAIR"
# The oldest and the newest minor version of Keras that tests/versions.py has run the tests with.
TESTED = ((3, 12), (3, 15))


def repair(keras: ModuleType) -> None:
    """Repair the Keras that has just been imported, if it needs to be; never raises."""
    try:
        context = Context.from_environment(os.environ)
        alone = context.size == 1 or not context.trains or context.parameter_servers
        if not alone and os.environ.get(SWITCH) != "0" and "keras.src.backend.tensorflow.trainer" in sys.modules:
            _repair(keras.__version__, context)
    except Exception as error:  # noqa: BLE001 - the program must not suffer for a convenience
        _say(f"Keras is left as it is: {type(error).__name__}: {error}")


@functools.cache  # a program may reload Keras, which does not undo the repair
def _repair(version: str, context: Context) -> None:
    reason = _unknown(version)
    if not reason:
        from . import callbacks, trainer

        replacements = [*trainer.replacements(), *callbacks.replacements()]
        others = ", ".join(str(one) for one in replacements if not one.fits())
        reason = f"it has another {others} than the repair was tested with" if others else ""
    if reason:
        _chief_says(context, f"Keras {version} is left as it is: {reason}; fit may fail with {context.size} workers")
        return
    for one in replacements:
        one.apply()
    _chief_says(
        context,
        f"Keras {version} repaired for {context.size} workers: fit, steps_per_execution, callbacks write on the chief "
        f"alone ({SWITCH}=0 leaves it as it is)",
    )


def _unknown(version: str) -> str:
    oldest, newest = TESTED
    major, minor = (int(part) for part in version.split(".")[:2])
    if oldest <= (major, minor) <= newest:
        return ""
    return f"the repair was tested with {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"


def _chief_says(context: Context, text: str) -> None:
    if context.is_chief:
        _say(text)


def _say(text: str) -> None:
    # Standard error may be closed, or its reader gone.
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"tflaunch: {text}\n")
