"""Imports without looking for garbage. ``boot.py`` loads this when TensorFlow is imported.

An import of TensorFlow 2.21 makes 330,000 objects, of which 4,000 are garbage. Python looks through them each time that there
are some more, which takes a fifth of the import (docs/facts.md, Start-up).
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def uncollected(load: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    """What loads a module as ``load`` does, but leaves its garbage; what there is then counts as old, as it soon would otherwise."""

    def exec_module(module: ModuleType) -> None:
        collects = gc.isenabled()
        gc.disable()
        try:
            load(module)
        finally:
            _grow_old()
            if collects:
                gc.enable()

    return exec_module


def _grow_old() -> None:
    """Have all that there is in the oldest generation, without looking at it."""
    # Not in PyPy's; and what somebody has put out of the collector's way is to stay there.
    if hasattr(gc, "freeze") and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()
