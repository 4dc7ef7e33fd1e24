"""How a run stands: where its tasks are and how far the training is, from what has happened so far. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from launcher import events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.placement import Task
    from launcher.plan import Plan

# The rate is that of the last so many seconds, about.
_WINDOW = 30


class _TaskStanding:
    """One task: ordered, running, stopped, out of reach, done, or in words how it ended; ``since`` when."""

    def __init__(self, task: Task, now: float) -> None:
        self.task = task
        self.pid: int | None = None
        self.be("ordered", now)

    def be(self, state: str, now: float) -> None:
        self.state = state
        self.since = now
        self.over = state not in {"ordered", "running", "stopped", "out of reach"}

    def as_json(self) -> dict[str, object]:
        shared = {"task": self.task.label, "host": self.task.host, "pid": self.pid}
        return {**shared, "state": self.state, "since": self.since}


class Standing:
    """The state of a run that is alive. Tell it when an attempt begins, and all that happens in it.

    Args:
        started: when the run was, in seconds since the epoch, as all times here.
    """

    def __init__(self, name: str, started: float) -> None:
        self._name = name
        self._started = started
        self._plan: Plan | None = None
        self._left_out: Sequence[str] = ()
        self._tasks: list[_TaskStanding] = []
        self._unborn = 0
        self._progress: Mapping[str, Any] = {}
        self._marks: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._stopping = False
        self._winding_up = False

    def begin(self, plan: Plan, left_out: Sequence[str], now: float) -> None:
        """Another attempt begins, without these hosts."""
        self._plan, self._left_out = plan, left_out
        self._tasks = [_TaskStanding(task, now) for task in plan.tasks]
        self._unborn = len(self._tasks)
        self._marks.clear()

    def wind_up(self) -> None:
        """There is no further attempt."""
        self._winding_up = True

    @property
    def started(self) -> bool:
        """Every task of this attempt has been started."""
        return bool(self._tasks) and not self._unborn

    @property
    def at_work(self) -> bool:
        """Something of this attempt is left."""
        return any(not one.over for one in self._tasks)

    def take(self, event: events.Event, now: float) -> None:
        """Something has happened."""
        match event:
            case events.TaskStarted(number, pid):
                self._unborn -= self._tasks[number].pid is None
                self._tasks[number].pid = pid
                self._tasks[number].be("running", now)
            case events.TaskStopped(number):
                self._tasks[number].be("stopped", now)
            case events.TaskResumed(number):
                self._tasks[number].be("running", now)
            case events.TaskExited(number):
                self._tasks[number].be(_ending(event), event.time)
            case events.AgentFault(order="spawn", task=int(number)):
                self._tasks[number].be("not started", now)
            case events.AgentLost(host):
                self._on_host(host, {"ordered", "running", "stopped", "out of reach"}, "lost", now)
            case events.LinkDown(host):
                self._on_host(host, {"running", "stopped"}, "out of reach", now)
            case events.LinkUp(host):
                self._on_host(host, {"out of reach"}, "running", now)
            case events.TaskReport(number, {"kind": "progress", "step": int(step)} as record):
                if self._tasks[number].task.job != "evaluator":
                    self._progressed(step, record, now)
            case events.Signalled() | events.StopAsked() | events.HostTerminated():
                self._stopping = True

    def _on_host(self, host: str, before: set[str], state: str, now: float) -> None:
        for one in self._tasks:
            if one.task.host == host and one.state in before:
                one.be(state, now)

    def _progressed(self, step: int, record: Mapping[str, Any], now: float) -> None:
        if not self._marks or now - self._marks[-1][0] >= 1:
            self._marks.append((now, step))
        self._progress = {**{name: record[name] for name in ("step", "of", "loss") if name in record}, "time": now}

    def _state(self) -> str:
        if self._stopping or self._winding_up:
            return "stopping"
        if self._plan is None:
            return "starting"
        if not self.at_work:
            return "restarting"
        if self._plan.attempt == 0 and self._unborn == len(self._tasks):
            return "starting"
        return "running"

    def _rate(self) -> float | None:
        """Steps a second."""
        if len(self._marks) < 2:
            return None
        (since, first), (until, last) = self._marks[0], self._marks[-1]
        return (last - first) / (until - since)

    def as_json(self) -> dict[str, object]:
        """All of it, for whoever asks."""
        plan = self._plan
        return {
            "run": self._name,
            "state": self._state(),
            "since": self._started,
            "attempt": plan.attempt if plan else 0,
            "max_restarts": plan.config.max_restarts if plan else 0,
            "tasks": [one.as_json() for one in self._tasks],
            "progress": {**self._progress, "rate": self._rate()} if self._progress else None,
            "left_out": list(self._left_out),
        }


def _ending(event: events.TaskExited) -> str:
    if event.signal is not None:
        return f"ended by signal {event.signal}"
    return "done" if event.status == 0 else f"failed with {event.status}"
