"""Gives SIGTERM back to the program that TensorFlow takes it from. ``boot.py`` loads this when TensorFlow is imported.

TensorFlow 2.21 replaces the action of SIGTERM, beneath Python, when a MultiWorkerMirroredStrategy of several workers is
built (``preemption_notifier.cc``). The signal is then only logged, unless there is a PreemptionCheckpointHandler: a worker
that is told to stop works on, or waits for peers that are gone, until its grace is over. So the strategy's end of it is
undone, and done again for the handler that needs it.

That is too late for a worker whose peers do not come: it waits inside the building of the strategy, where the action is
TensorFlow's already, and no thread of Python's runs. All it can do is to tell the agent before that it is about to be deaf.
"""

from __future__ import annotations

import ctypes
import functools
import signal
import threading
from typing import TYPE_CHECKING, Any

from .context import report

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_libc = ctypes.CDLL(None)
# Large enough for any system's struct sigaction; it is only kept, and given back.
_tensorflows = ctypes.create_string_buffer(256)
_taken_back = False


def after_strategy(module: ModuleType) -> None:
    """Have the strategy of ``collective_all_reduce_strategy`` leave SIGTERM as it found it."""
    _surround(getattr(module, "CollectiveAllReduceStrategy", None), before=_go_deaf, after=_take_back)


def before_handler(module: ModuleType) -> None:
    """Have PreemptionCheckpointHandler of ``failure_handling`` find SIGTERM as TensorFlow had left it."""
    _surround(getattr(module, "PreemptionCheckpointHandler", None), before=_hand_over)


def _surround(kind: Any, before: Callable[[], object] = bool, after: Callable[[], object] = bool) -> None:  # noqa: ANN401
    # A TensorFlow that has the class elsewhere is left as it is: the program must not suffer for a convenience.
    if kind is None:
        return
    build = kind.__init__

    @functools.wraps(build)
    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807 - it is a method
        before()
        try:
            build(self, *args, **kwargs)
        finally:
            after()

    kind.__init__ = __init__


def _go_deaf() -> None:
    report("state", deaf=True)


def _hand_over() -> None:
    if _taken_back:
        _libc.sigaction(signal.SIGTERM, _tensorflows, None)


def _take_back() -> None:
    global _taken_back  # noqa: PLW0603 - a signal's action is the process's, so is the memory of it
    report("state", deaf=False)
    wanted = signal.getsignal(signal.SIGTERM)
    # Python sets actions in the main thread only. None: somebody else than Python, and than TensorFlow, had set one.
    if wanted is None or threading.current_thread() is not threading.main_thread():
        return
    _libc.sigaction(signal.SIGTERM, None, _tensorflows)
    signal.signal(signal.SIGTERM, wanted)
    _taken_back = True
