"""How a run ended: as a value, as outcome.json, and as the last thing a person reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from launcher.errors import Interrupted, TflaunchError
from launcher.names import together
from launcher.run_dir import last_lines
from launcher.verdict import Fate, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.events import TaskExited
    from launcher.placement import Task
    from launcher.plan import Plan
    from launcher.restart import Try
    from launcher.run_dir import RunDir
    from launcher.stacks import Report
    from launcher.supervisor import Supervisor

_LAST_LINES = 10
_WIDEST = 400


class TaskOutcome(NamedTuple):
    """One task's end.

    Attributes:
        fate: done, failed, victim (of a peer's failure), stopped (by us), lost (with its host) or not started.
        status: its exit status; None when a signal ended it, or nobody saw it end.
        signal: the number of that signal.
        peak: the most memory it had resident, in bytes.
        log: the file with everything it wrote; it may not exist if it wrote nothing.
    """

    task: Task
    fate: Fate
    status: int | None
    signal: int | None
    peak: int | None
    log: Path


@dataclass(frozen=True)
class Outcome:
    """A run that came to starting its workers, after its end.

    Attributes:
        last_words: the last lines of the task, or of the agent, that is to blame.
        before: the attempts before the last one.
        enough: why there was no further one, where it might have been expected.
        left_out: the hosts that the last attempt did without.
        stacks: where all tasks were before it was ended for want of progress or time.
        step: the last one that a task of the last attempt has told.
    """

    verdict: Verdict
    tasks: tuple[TaskOutcome, ...]
    run_dir: Path
    last_words: tuple[str, ...] = ()
    before: tuple[Try, ...] = ()
    enough: str = ""
    left_out: tuple[str, ...] = ()
    stacks: Report | None = None
    step: int | None = None

    def as_json(self) -> dict[str, object]:
        """The content of outcome.json."""
        verdict = self.verdict
        return {
            "status": verdict.status,
            "exit_status": verdict.exit_status,
            "blame": "worker"
            if verdict.cause
            else {"ok": "nobody", "unavailable": "host", "hung": "worker"}.get(verdict.status, "caller"),
            "cause": verdict.cause and verdict.cause.label,
            "reason": verdict.reason,
            "hint": verdict.hint,
            "step": self.step,
            "exception": verdict.exception,
            "alike": [task.label for task in verdict.alike],
            "stacks": _lines(self.stacks),
            "restarts": [_try_as_json(number, one) for number, one in enumerate(self.before)],
            "left_out": list(self.left_out),
            "tasks": [_task_as_json(one) for one in self.tasks],
        }

    def without_files(self, error: TflaunchError) -> Outcome:
        """The same, but what was to be fetched is not here: a run that went well has not, then."""
        said = f"what was to be fetched is not here: {error.args[0]}"
        if self.verdict.status != "ok":
            return replace(self, enough="\n".join(filter(None, [self.enough, said])))
        verdict = replace(self.verdict, status="unavailable", exit_status=69, reason=f"all tasks are done, but {said}")
        return replace(self, verdict=verdict)

    def story(self) -> str:
        """The verdict in lines for a person: the cause, its last words, who went down with it, where to read on."""
        if self.verdict.status == "ok":
            return f"all done{self._after()} · logs in {self.run_dir}"
        lines = [self._headline()]
        if self.verdict.hint:
            lines.append(self.verdict.hint)
        if self.stacks is not None:
            lines += self.stacks.shown()
        if self.last_words:
            lines += ["its last lines:", *(f"  {line[:_WIDEST]}" for line in self.last_words)]
        elif self.verdict.cause is not None:
            lines.append("it printed nothing")
        lines += self._others()
        if self.enough:
            lines.append(self.enough)
        return "\n".join([*lines, f"exit status {self.verdict.exit_status} · logs in {self.run_dir}"])

    def _after(self) -> str:
        count = len(self.before)
        without = f", without {', '.join(self.left_out)}" if self.left_out else ""
        return f" after {count} restart{'s' if count > 1 else ''}{without}" if count else ""

    def _headline(self) -> str:
        cause = self.verdict.cause
        if cause is None:
            return self.verdict.reason
        alike = f" (so did {_names(self.verdict.alike)})" if self.verdict.alike else ""
        return f"{cause.label} failed first, on {cause.host}{alike}: {self.verdict.reason}"

    def _others(self) -> list[str]:
        told = {
            "failed": "failed too, with another error",
            "victim": "failed because of it",
            "lost": "lost with its host",
            "stopped": "stopped",
            "not started": "not started",
        }
        named = (self.verdict.cause, *self.verdict.alike)
        others = [one for one in self.tasks if one.task not in named]
        lines = []
        for fate, words in told.items():
            if names := _names([one.task for one in others if one.fate == fate]):
                lines.append(f"{words}: {names}")
        return lines


def conclude(
    plan: Plan,
    supervisor: Supervisor,
    run_dir: RunDir,
    tries: Sequence[Try] = (),
    enough: str = "",
    left_out: tuple[str, ...] = (),
) -> Outcome:
    """The outcome of a run that is over; the plan and the supervisor are those of its last attempt that had workers."""
    *before, last = tries or [supervisor.attempt()]
    verdict = last.verdict
    exits = supervisor.exits()
    tasks = tuple(_task_outcome(task, verdict, exits.get(task.number), run_dir) for task in plan.tasks)
    words = tuple(_last_words(verdict, tasks, run_dir))
    return Outcome(verdict, tasks, run_dir.path, words, tuple(before), enough, left_out, last.stacks, last.step)


def _last_words(verdict: Verdict, tasks: Sequence[TaskOutcome], run_dir: RunDir) -> list[str]:
    if verdict.cause is not None:
        return last_lines(tasks[verdict.cause.number].log, _LAST_LINES)
    # Of those whose end was seen, the agent may be there still.
    lost = next((one.task.host for one in tasks if one.fate == "lost" and one.peak is None), None)
    return [] if lost is None else last_lines(run_dir.agent_log(lost), _LAST_LINES)


def failure(error: BaseException) -> Mapping[str, object]:
    """The content of outcome.json for a run that has no verdict: an error, the user or a bug of ours ended it before."""
    match error:
        case TflaunchError():
            status, blame, reason, hint = error.exit_status, error.blame, error.args[0], error.hint
        case KeyboardInterrupt():
            status, blame, reason, hint = 130, Interrupted.blame, "interrupted by SIGINT", ""
        case _:
            status, blame, reason, hint = 1, TflaunchError.blame, repr(error), ""
    return {
        "status": "interrupted" if status > 128 else "not started",
        "exit_status": status,
        "blame": blame,
        "cause": None,
        "reason": reason,
        "hint": hint,
        "step": None,
        "exception": "",
        "alike": [],
        "stacks": [],
        "restarts": [],
        "left_out": [],
        "tasks": [],
    }


def _task_outcome(task: Task, verdict: Verdict, exited: TaskExited | None, run_dir: RunDir) -> TaskOutcome:
    fate = verdict.fates[task.number]
    log = run_dir.log_path(task.slug)
    if exited is None:
        return TaskOutcome(task, fate, None, None, None, log)
    return TaskOutcome(task, fate, exited.status, exited.signal, exited.peak, log)


def _try_as_json(number: int, one: Try) -> dict[str, object]:
    cause = one.verdict.cause and one.verdict.cause.label
    shared = {"attempt": number, "cause": cause, "reason": one.verdict.reason, "step": one.step}
    return {**shared, "stacks": _lines(one.stacks)}


def _lines(report: Report | None) -> list[str]:
    return [] if report is None else list(report.lines)


def _task_as_json(one: TaskOutcome) -> dict[str, object]:
    return {
        "task": one.task.label,
        "host": one.task.host,
        "fate": one.fate,
        "status": one.status,
        "signal": one.signal,
        "peak": one.peak,
        "log": str(one.log),
    }


def _names(tasks: Sequence[Task]) -> str:
    return together(task.label for task in tasks)
