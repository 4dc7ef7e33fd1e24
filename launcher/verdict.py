"""From how the tasks ended to what happened: the root cause, its victims, and the exit status. Pure."""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from launcher import network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.events import TaskExited
    from launcher.placement import Task

# Of Python, its libraries and TensorFlow: names, as a record has no more.
_TRANSIENT = frozenset(
    {
        *(
            "ConnectionError",
            "ConnectionResetError",
            "ConnectionRefusedError",
            "ConnectionAbortedError",
            "BrokenPipeError",
        ),
        *("TimeoutError", "timeout", "gaierror", "URLError", "HTTPError", "SSLError", "ReadTimeout", "ConnectTimeout"),
        *("UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError", "ResourceExhaustedError"),
    }
)
# Seconds. To know that a host is lost may take the start of a step on it (engines/slurm.py).
_MOMENT = 5.0
_ASKED = "a worker was asked to end by SIGTERM"

Fate = Literal["done", "failed", "victim", "stopped", "lost", "not started"]


class Ending(NamedTuple):
    """What is known of one task when the run is over.

    Attributes:
        exited: how its process ended; None when it was never seen to end.
        error: its last error, exit or not-started record, if it made one.
        lost: why its host was lost, with the task still on it; empty when it was not. ``lost_at`` is when.
        stopped: when a signal stopped it, if it did not go on before the run was ended.
        preempted: its record of that it saved its work and ended because of a SIGTERM, if it made one.
        unanswered: numbers of the tasks whose hosts acknowledged nothing any more of what it sent them.
    """

    task: Task
    exited: TaskExited | None = None
    error: Mapping[str, Any] | None = None
    lost: str = ""
    lost_at: float = 0.0
    stopped: float | None = None
    preempted: Mapping[str, Any] | None = None
    unanswered: tuple[int, ...] = ()


class Interruption(NamedTuple):
    """Why the run was stopped: by a signal to the launcher or to a host, by its deadline, or because it ``hung``, in words, with a ``hint``."""

    time: float
    signal: int | None = None
    timeout: float | None = None
    host: str = ""
    hung: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Verdict:
    """What happened, in the terms of who has to act.

    Attributes:
        status: ``ok``, ``failed`` (a worker is to blame), ``interrupted`` (from outside: a signal to the launcher, a host or
            a worker that ended in good order because of it), ``deadline``, ``hung`` (nobody made progress) or
            ``unavailable`` (a host).
        exit_status: what the command ends with.
        cause: the task that failed first; None when no task is to blame.
        reason: one line, in words.
        hint: what to do about it; may be empty.
        fates: what became of each task, by number.
        alike: other tasks that failed with the same words as the cause.
        exception: the type of the exception that ended the cause; empty when it was none.
        transient: it is one that comes and goes, of the network or of a peer.
    """

    status: Literal["ok", "failed", "interrupted", "deadline", "hung", "unavailable"]
    exit_status: int
    cause: Task | None
    reason: str
    hint: str
    fates: Mapping[int, Fate]
    alike: tuple[Task, ...] = ()
    exception: str = ""
    transient: bool = False


def judge(endings: Sequence[Ending], interruption: Interruption | None = None) -> Verdict:
    """Tell the cause from its victims.

    The cause is the task that failed first on its own account. An evaluator's failure ends nobody else, so it counts only
    when no member of the cluster failed; one that looks like the echo of a peer's, only when there is no other at all, and
    the network did not fail either.
    Whatever kills an agent may kill its workers a moment before: one that SIGKILL ended is no cause where a host is lost.
    What ended by our own signal was stopped, and is no failure, unless it had reported an error before; nor is what saved
    its work and ended because of somebody else's SIGTERM. A task that a signal stopped, and that did not go on, failed then.
    """
    fates: dict[int, Fate] = {ending.task.number: _fate(ending) for ending in endings}
    every = [ending for ending in endings if fates[ending.task.number] == "failed"]
    failed = [ending for ending in every if ending.task.job != "evaluator"] or every
    victims = [ending for ending in endings if fates[ending.task.number] == "victim"]
    suspects = [ending for ending in failed or victims if interruption is None or _when(ending) < interruption.time]
    lost = [ending for ending in endings if fates[ending.task.number] == "lost"]
    went: dict[int, Fate] = {one.task.number: "lost" for one in every if lost and _went_with(one, lost[0].lost_at)}
    nobody_else = all(one.task.number in went for one in failed)
    if lost and nobody_else and (interruption is None or lost[0].lost_at < interruption.time):
        reason = f"the agent on {lost[0].task.host} was lost: {lost[0].lost}"
        return Verdict("unavailable", 69, None, reason, "", {**fates, **went})
    if suspects and not failed and (cut := network.cut(endings)):
        return Verdict("unavailable", 69, None, cut.reason, cut.hint, fates)
    if suspects:
        return _blame(min(suspects, key=_when), suspects, fates)
    saved = next((ending for ending in endings if ending.preempted is not None), None)
    if interruption is not None:
        return _interrupted(interruption, fates, saved, network.cut(endings))
    if saved is not None:
        return Verdict("interrupted", 128 + signal.SIGTERM, None, _ASKED, _kept(saved), fates)
    return Verdict("ok", 0, None, "all tasks are done", "", fates)


def _fate(ending: Ending) -> Fate:
    if ending.lost:
        return "lost"
    if ending.exited is None:
        return "not started"
    exited, error = ending.exited, ending.error
    if exited.status == 0:
        return "done"
    if ending.stopped is not None:
        return "failed"
    if ending.preempted is not None or (exited.sent and error is None):
        return "stopped"
    if error is not None and error.get("after_stop"):
        return "stopped"
    return "victim" if error is not None and error.get("victim") else "failed"


def _went_with(ending: Ending, lost_at: float) -> bool:
    """Whether a SIGKILL of somebody else's has ended it, not for its memory, a moment before a host was lost or afterwards."""
    exited = ending.exited
    if exited is None or exited.signal != signal.SIGKILL or exited.sent or exited.oom:
        return False
    return ending.error is None and ending.stopped is None and exited.time > lost_at - _MOMENT


def _when(ending: Ending) -> float:
    if ending.stopped is not None:
        return ending.stopped
    if ending.error is not None and isinstance(ending.error.get("time"), int | float):
        return float(ending.error["time"])
    return ending.exited.time if ending.exited is not None else float("inf")


def _blame(cause: Ending, suspects: Sequence[Ending], fates: Mapping[int, Fate]) -> Verdict:
    reason = explain(cause)
    alike = tuple(other.task for other in suspects if other is not cause and explain(other) == reason)
    error = cause.error if cause.error is not None and cause.stopped is None else {}
    exception = str(error["type"]) if error.get("kind") == "error" else ""
    transient = bool(error.get("victim")) or exception in _TRANSIENT
    return Verdict("failed", _exit_status(cause), cause.task, reason, _hint(cause), fates, alike, exception, transient)


def _exit_status(ending: Ending) -> int:
    exited, error = ending.exited, ending.error or {}
    assert exited is not None  # noqa: S101 - only what has ended is a suspect
    if ending.stopped is not None:
        return 128 + signal.SIGSTOP
    if exited.sent and exited.signal is not None:
        # It had failed, and was on its way out when our signal cut that short: 1 is what Python makes of an exception.
        status = error.get("status")
        return status if isinstance(status, int) and 0 < status < 256 else 1
    return exited.status or 1 if exited.signal is None else 128 + exited.signal


def _interrupted(
    interruption: Interruption, fates: Mapping[int, Fate], saved: Ending | None, cut: network.Cut | None
) -> Verdict:
    hint = _kept(saved)
    if interruption.signal is not None:
        name = signal.Signals(interruption.signal).name
        why = ", a warning that the time is nearly over" if interruption.signal == signal.SIGUSR1 else ""
        return Verdict("interrupted", 128 + interruption.signal, None, f"interrupted by {name}{why}", hint, fates)
    if interruption.host:
        reason = f"{interruption.host} was told to end (SIGTERM to its agent)"
        return Verdict("interrupted", 128 + signal.SIGTERM, None, reason, hint, fates)
    if interruption.hung:
        if cut is not None:
            return Verdict("hung", 124, None, f"{interruption.hung}: {cut.reason}", cut.hint, fates)
        return Verdict("hung", 124, None, interruption.hung, interruption.hint, fates)
    reason = f"the run's deadline of {interruption.timeout:g} s passed"
    if cut is not None:
        return Verdict("deadline", 124, None, f"{reason}: {cut.reason}", cut.hint, fates)
    return Verdict("deadline", 124, None, reason, "raise --timeout, or leave it out", fates)


def _kept(saved: Ending | None) -> str:
    """What there is to go on from, after workers have ended in good order."""
    match saved and saved.preempted:
        case {"saved": True, "step": int(step)}:
            return f"step {step:,} is saved: run it again to go on from there"
        case {"saved": False}:
            return "nothing new was saved: run it again to go on from the last checkpoint, if there is one"
    return ""


def explain(ending: Ending) -> str:
    """Why this task failed, in one line."""
    if ending.stopped is not None:
        return "stopped by a signal (SIGSTOP, or one like it), and did not go on"
    match ending.error:
        case {"kind": "error", "type": kind, "message": message, **rest}:
            first_line = str(message).strip().split("\n")[0]
            said = f"{kind}: {first_line}" if first_line else str(kind)
            where = rest.get("where")
            return f"{said} ({where})" if where else said
        case {"kind": "not-started", "step": step, "error": error}:
            return f"could not {step}: {error}"
        case {"kind": "exit", "text": str(text)} if text.strip():
            return f"exited: {text.strip().splitlines()[0]}"
        case {"kind": "exit", "status": int(status)}:
            return f"exited with status {status}"
    return _explain_exit(ending.exited)


def _explain_exit(exited: TaskExited | None) -> str:
    if exited is None:
        return "was never started"
    if exited.oom:
        return f"killed by the kernel: out of memory (it held {exited.peak / 2**30:.1f} GiB at its peak)"
    if exited.signal is not None:
        core = ", core dumped" if exited.core else ""
        return f"killed by {_signal_name(exited.signal)}{core}"
    return f"exited with status {exited.status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _hint(ending: Ending) -> str:
    match ending.error:
        case {"type": "ModuleNotFoundError", "message": str(message)} if "'tensorflow'" in message:
            return "install TensorFlow for that interpreter: pip install 'tflaunch[tensorflow]'"
        case {"kind": "not-started", "errno": errno.ENOENT, "step": str(step)} if step.startswith("change to "):
            # Most often the launcher's own, which other hosts do not have.
            return 'copy it to the hosts with "sync", or name one that they have with "cwd"'
        case {"kind": "not-started", "errno": errno.ENOENT}:
            return "check the program's name, its interpreter and the working directory"
        case {"kind": "not-started", "errno": errno.EACCES}:
            return "make it executable: chmod +x"
    return ""
