"""Imports without looking for garbage. ``boot.py`` loads this when TensorFlow is imported.

An import of TensorFlow 2.21 makes 330,000 objects, of which 4,000 are garbage. Python looks through them each time that there
are some more, which takes a fifth of the import (docs/facts.md, Start-up).
"""

from __future__ import annotations

import gc
from importlib.machinery import ModuleSpec


def leave(spec: ModuleSpec) -> None:
    """Have the module of this spec loaded with the collector off. A spec of somebody's own kind stays as it is."""
    if type(spec) is ModuleSpec:
        spec.__class__ = _Uncollected


class _Uncollected(ModuleSpec):
    """The class of a module's spec until that is loaded: meanwhile the collector is off.

    importlib sets ``_initializing`` before it runs a module, and when that has ended, however it has. So there is no frame of ours
    between the import and the module, which its tracebacks and warnings would show.
    """

    @property
    def _initializing(self) -> bool:
        return bool(vars(self).get("_initializing"))

    @_initializing.setter
    def _initializing(self, now: bool) -> None:
        vars(self)["_initializing"] = now
        if now:
            vars(self)["_collects"] = gc.isenabled()
            gc.disable()
            return
        collects = vars(self).pop("_collects", False)
        self.__class__ = ModuleSpec  # type: ignore[assignment]
        _grow_old()
        if collects:
            gc.enable()


def _grow_old() -> None:
    """Have all that there is in the oldest generation, where it soon would be, without looking at it."""
    # Not in PyPy's; and what somebody has put out of the collector's way is to stay there.
    if hasattr(gc, "freeze") and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()
