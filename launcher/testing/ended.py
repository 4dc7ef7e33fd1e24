"""How a run of a test's cluster ended: what each task returned, or why the test fails."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from launcher.errors import TflaunchError, UnavailableError
from launcher.run_dir import last_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.outcome import Outcome, TaskOutcome
    from launcher.testing.call import Answer
    from launcher.verdict import Fate

_LAST_LINES = 10


class TaskFailed(TflaunchError):
    """What ran in a cluster failed there. The message has the cause's traceback first, and then its victims'.

    Attributes:
        ended: how the run ended, with what the other tasks returned.
    """

    __module__ = "launcher.testing"
    blame = "worker"

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.story())
        self.ended = ended


class Unprivileged(UnavailableError, SkipTest):
    """A fault cannot be made here, for want of privileges or of hosts: pytest and unittest skip the test."""

    __module__ = "launcher.testing"


@dataclass(frozen=True)
class Ended:
    """A run that is over.

    Attributes:
        outcome: all that is known of it, as outcome.json has it.
        answers: what each task left behind, in order of the tasks.
    """

    outcome: Outcome
    answers: tuple[Answer, ...]

    @property
    def ok(self) -> bool:
        """All tasks that had to succeed did, and returned."""
        return self.outcome.verdict.status == "ok" and not self._silent()

    @property
    def fates(self) -> tuple[Fate, ...]:
        """What became of each task: done, failed, victim (of a peer's failure), stopped, ..."""
        return tuple(task.fate for task in self.outcome.tasks)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each task printed."""
        return tuple(task.log.read_text(errors="replace") if task.log.exists() else "" for task in self.outcome.tasks)

    def values(self) -> list[Any]:
        """What each task returned; None for one that did not, or was not to."""
        return [None if one.value is None else pickle.loads(one.value) for one in self.answers]  # noqa: S301 - our tasks'

    def errors(self) -> list[BaseException | None]:
        """The exception that ended each task; None for one that ended otherwise, or whose exception cannot be pickled."""
        return [None if one.error is None else pickle.loads(one.error) for one in self.answers]  # noqa: S301 - as above

    def results(self) -> list[Any]:
        """What each task returned, of a run that went well.

        Raises:
            TaskFailed: it did not.
            Unprivileged: a fault that was ordered cannot be made here.
        """
        for answer in self.answers:
            if answer.unprivileged:
                raise Unprivileged(answer.unprivileged)
        if not self.ok:
            raise TaskFailed(self)
        return self.values()

    def story(self) -> str:
        """What a person reads: the cause, then its victims, each with its traceback or its last lines."""
        verdict = self.outcome.verdict
        cause = next((task for task in self.outcome.tasks if task.task == verdict.cause), None)
        lines = [self._headline()]
        if verdict.hint and verdict.cause:
            lines.append(verdict.hint)
        if self.outcome.stacks is not None:
            lines += ["", *self.outcome.stacks.full.rstrip().splitlines()]
        told: dict[str, str] = {}
        if cause is not None:
            lines += self._words(cause, f"{cause.task.label}:", told)
        for task in self.outcome.tasks:
            if task is not cause and task.task not in verdict.alike:
                lines += self._words(task, f"{task.task.label}, {_WHY.get(task.fate, task.fate)}:", told)
        return "\n".join([*lines, "", f"logs in {self.outcome.run_dir}"])

    def _headline(self) -> str:
        verdict = self.outcome.verdict
        if verdict.cause is not None:
            alike = f" (so did {', '.join(task.label for task in verdict.alike)})" if verdict.alike else ""
            return f"{verdict.cause.label} failed first{alike}: {verdict.reason}"
        if verdict.status == "ok":
            return f"{', '.join(task.task.label for task in self._silent())} ended without returning"
        return verdict.reason

    def _words(self, task: TaskOutcome, head: str, told: dict[str, str]) -> Iterator[str]:
        answer = self.answers[task.task.number]
        said = answer.traceback.rstrip()
        if not said and task.fate in {"failed", "victim"}:
            said = "\n".join(last_lines(task.log, _LAST_LINES))
        if not said:
            return
        yield from ("", head)
        if said in told:
            yield f"  the same as {told[said]}"
        else:
            told[said] = task.task.label
            yield from (f"  {line}" for line in said.splitlines())

    def _silent(self) -> list[TaskOutcome]:
        """The tasks that left with status 0 and no value, as ``sys.exit()`` does."""
        return [
            task for task in self.outcome.tasks if task.fate == "done" and self.answers[task.task.number].value is None
        ]


_WHY = {"failed": "failed too", "victim": "failed because of it", "done": "was done"}
