"""Has TensorFlow's idle threads sleep where the worker has one core. ``boot.py`` loads this when TensorFlow is imported.

A thread of TensorFlow 2.21's pools that has nothing to do looks for work over and over before it sleeps (Eigen's
NonBlockingThreadPool), so that it is there at once when there is some. On a worker's only core that keeps away what it waits
for: a peer's part of a collective is taken in by a thread of gRPC. What it costs: docs/facts.md, Cores.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


def after_context(module: ModuleType) -> None:
    """Have the context of ``eager.context`` ask for ``disable_thread_spinning`` when it is made."""
    kind = getattr(module, "Context", None)
    made = getattr(kind, "config", None)
    # A TensorFlow that has it elsewhere is left as it is.
    if kind is None or not isinstance(made, property) or made.fget is None or not hasattr(os, "sched_getaffinity"):
        return
    make = made.fget

    def config(self: object) -> Any:  # noqa: ANN401 - a ConfigProto
        proto = make(self)
        if len(os.sched_getaffinity(0)) == 1:
            proto.experimental.disable_thread_spinning = True
        return proto

    kind.config = property(config, made.fset, made.fdel, made.__doc__)
