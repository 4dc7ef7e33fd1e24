"""What docs/reliability.md promises for each case. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from tests.chaos.grid import AGENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.chaos.grid import Case, Fault, Point

End = Literal["goes on", "resumes", "stops", "is refused"]

_WORDS: Mapping[Fault, str] = {
    "SIGKILL": "killed by SIGKILL",
    "SIGSTOP": "stopped by a signal",
    "SIGTERM": "killed by SIGTERM",
    "exception": "RuntimeError: chaos",
    "sys.exit": "exited with status 3",
    "os._exit": "exited with status 3",
    "abort": "killed by SIGABRT",
    "out of memory": "killed by the kernel: out of memory",
    "full disk": "No space left on device",
}
# Here a worker has nothing to save, and nobody who would save it.
_NOTHING_TO_SAVE: tuple[Point, ...] = ("started", "joining", "leaving")


class Promise(NamedTuple):
    """How a run ends.

    Attributes:
        end: it goes on as if nothing had been; is started again and succeeds; stops in good order with 143, and the same
            command goes on from there; or is refused before it begins.
        cause: the task that is blamed; None for a host, or nobody.
        words: what the verdict says.
    """

    end: End
    cause: str | None
    words: str


def promised(case: Case) -> Promise:
    """What is promised."""
    if case.victim in AGENT:
        return _of_agents(case)
    victim = "worker 0" if case.victim == "chief" else "worker 1"
    words = _WORDS[case.fault]
    if case.fault == "SIGTERM" and case.point not in _NOTHING_TO_SAVE:
        return Promise("stops", None, "a worker was asked to end by SIGTERM")
    if case.fault == "full disk" and case.phase in {"start-up", "join"}:
        return Promise("is refused", victim, words)
    return Promise("resumes", victim, words)


def _of_agents(case: Case) -> Promise:
    lost = "the agent on 127.0.0.1 was lost: "
    match case.fault, case.victim:
        case "SIGTERM", _:
            return Promise("stops", None, "127.0.0.1 was told to end (SIGTERM to its agent)")
        case "SIGSTOP", "guard":
            return Promise("goes on", None, "all tasks are done")
        case "SIGSTOP", _:
            return Promise("resumes", None, lost + "stopped by a signal")
        case _:
            return Promise("resumes", None, lost + "killed by SIGKILL")
