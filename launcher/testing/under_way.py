"""A run under way, as the test that started it sees it: to wait for, to hurt, to end.

The run has a thread of its own, and in it the launcher's loop. The test's thread only posts events into that.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.errors import RequestError
from launcher.testing.drill import Drill
from launcher.testing.ended import Ended, Unprivileged
from launcher.testing.plainly import plainly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from launcher.loop import Loop
    from launcher.plan import Plan
    from launcher.run_dir import RunDir
    from launcher.testing.call import Call
    from launcher.testing.crew import Crews
    from launcher.testing.faults import Faults
    from launcher.testing.settings import Settings


class UnderWay:
    """One run. ``begin`` starts it.

    Args:
        labels: the tasks, in order.
        faults: what the tasks will do to themselves.
    """

    def __init__(
        self,
        config: Settings,
        run_dir: RunDir,
        call: Call,
        labels: Sequence[str],
        faults: Faults,
    ) -> None:
        self.labels = tuple(labels)
        self.run_dir = run_dir
        self._config = config
        self._call = call
        self._faults = faults
        self._changed = threading.Condition()
        self._loop: Loop | None = None
        self._started: set[int] = set()
        self._steps: dict[int, int] = {}
        self._answer: events.TaskSignalled | events.LineSet | None = None
        self._ended: Ended | None = None
        self._error: BaseException | None = None

    @property
    def over(self) -> bool:
        """Nothing of it is left."""
        return self._ended is not None or self._error is not None

    def begin(self, crews: Crews) -> None:
        """Start the tasks; returns when they are there, or when it is over.

        Raises:
            Unprivileged: they cannot be started as it was asked for here.
        """
        name = f"tflaunch {self._config.name}"
        threading.Thread(target=self._work, args=(crews,), name=name, daemon=True).start()
        self._wait_until(lambda: len(self._started) == len(self.labels))
        if isinstance(self._error, Unprivileged):
            raise self._error

    @plainly
    def wait(self) -> Ended:
        """Wait for the end, whatever it is.

        Raises:
            TflaunchError: it did not come to starting the tasks.
        """
        self._wait_until(lambda: False)
        if self._error is not None:
            raise self._error
        assert self._ended is not None  # noqa: S101 - over, and without an error
        return self._ended

    @plainly
    def result(self) -> list[Any]:
        """Wait for the end; what each task returned, in order of the tasks.

        Raises:
            TaskFailed: it did not go well.
        """
        return self.wait().results()

    def until_step(self, step: int, task: int) -> None:
        """Wait until a task has reported this step.

        Raises:
            RequestError: the run was over before.
        """
        self._wait_until(lambda: self._steps.get(task, -1) >= step)
        if self._steps.get(task, -1) < step:
            raise RequestError(f"{self.labels[task]} ended before it reported step {step}", "worker.report tells steps")

    def order(self, task: int, fault: str, cpu: float = 1.0, peer: int = -1) -> None:
        """Have something happen to a task, or to its line to a peer; returns when it has.

        Raises:
            RequestError: the task has ended.
        """
        self._answer = None
        self._post(events.FaultOrdered(task, fault, cpu, peer))
        self._wait_until(lambda: self._answer is not None)
        match self._answer:
            case None | events.TaskSignalled(alive=False):
                raise RequestError(f"too late to {fault} {self.labels[task]}: it has ended")

    def stop(self) -> None:
        """End it now, if it is not over."""
        with self._changed:
            self._changed.wait_for(lambda: self._loop is not None or self.over)
        for _ in range(2):
            self._post(events.Signalled(signal.SIGINT))
        with self._changed:
            self._changed.wait_for(lambda: self.over)

    # In the test's thread

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        try:
            with self._changed:
                self._changed.wait_for(lambda: self.over or reached())
        except BaseException:  # Ctrl-C, or a timeout of the test: whoever waited does so no more
            self.stop()
            raise

    def _post(self, event: events.Event) -> None:
        with self._changed:
            if self._loop is not None:
                self._loop.post(event)

    # In the run's thread

    def _work(self, crews: Crews) -> None:
        ended: Ended | None = None
        error: BaseException | None = None
        try:
            with crews.one(self._config) as crew:
                outcome = crew.run(self._config, self.run_dir, self._open_to_orders)
            ended = Ended(outcome, tuple(self._call.answer(task.task.slug) for task in outcome.tasks))
        except BaseException as raised:  # noqa: BLE001 - it is raised where somebody waits
            error = raised
        finally:
            self.run_dir.close()
        with self._changed:
            self._ended, self._error = ended, error
            self._changed.notify_all()

    @contextmanager
    def _open_to_orders(self, plan: Plan, loop: Loop) -> Iterator[Drill]:
        self._listen(loop)
        try:
            yield Drill(plan, self._tell, self._faults)
        finally:
            self._listen(None)

    def _listen(self, loop: Loop | None) -> None:
        with self._changed:
            self._loop = loop
            self._changed.notify_all()

    def _tell(self, event: events.Event) -> None:
        with self._changed:
            match event:
                case events.TaskSignalled() | events.LineSet():
                    self._answer = event
                case events.TaskStarted(task) | events.AgentFault(task=int(task)):
                    self._started.add(task)
                case events.TaskReport(task, {"kind": "progress", "step": int(step)}):
                    self._steps[task] = max(step, self._steps.get(task, step))
            self._changed.notify_all()
