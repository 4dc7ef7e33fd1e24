"""tf_keras on several workers: it knows of chiefs, but for CSVLogger, which writes every row once for each worker.

Loaded when tf_keras is (``boot.py``). Nothing is said of it: no script can rely on what is changed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .follow import on_chief
from .repair import SWITCH
from .replacement import Replacement

if TYPE_CHECKING:
    from types import ModuleType


def repair(tf_keras: ModuleType) -> None:
    """Have CSVLogger write on the chief alone; a tf_keras that has another one is left as it is."""
    if os.environ.get(SWITCH) == "0":
        return
    logger = tf_keras.callbacks.CSVLogger
    hooks = {
        "on_train_begin": ("self", "logs"),
        "on_epoch_end": ("self", "epoch", "logs"),
        "on_train_end": ("self", "logs"),
    }
    replacements = [Replacement(logger, name, parameters, on_chief) for name, parameters in hooks.items()]
    if all(one.fits() for one in replacements):
        for one in replacements:
            one.apply()
