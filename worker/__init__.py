"""What runs inside every worker process of a cluster: the boot of a script, and training.

``python -m worker digits`` trains in whatever cluster ``TF_CONFIG`` describes, or alone when there is none. A training of
one's own is a ``Task`` in a file: ``python -m worker my_task.py:task``. Importing this package imports neither TensorFlow
nor anything else; what it offers is imported when it is asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.context import report
    from worker.data import Arrays, Indexed, Records
    from worker.fit import fit_data
    from worker.task import Data, Result, Task, cross_entropy

__all__ = ["Arrays", "Data", "Indexed", "Records", "Result", "Task", "cross_entropy", "fit_data", "report"]

_ROOMS = {
    **dict.fromkeys(("Arrays", "Indexed", "Records"), "worker.data"),
    **dict.fromkeys(("Data", "Result", "Task", "cross_entropy"), "worker.task"),
    "fit_data": "worker.fit",
    "report": "worker.context",
}


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_ROOMS[name]), name)
