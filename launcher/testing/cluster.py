"""A cluster as a test has it: runs functions and scripts in its tasks, one after another, and has things go wrong."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import placement
from launcher.config import Function
from launcher.errors import RequestError
from launcher.run_dir import RunDir, last_lines
from launcher.testing.call import Call, Work
from launcher.testing.crew import Crews
from launcher.testing.faults import Faults
from launcher.testing.plainly import plainly
from launcher.testing.settings import settings_of
from launcher.testing.under_way import UnderWay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from launcher.testing.ended import Ended
    from launcher.testing.settings import Settings

# As many lines of each task are shown; its log has them all.
_SHOWN = 1000


class Clusters:
    """Makes clusters. As a context manager it ends those that still run.

    Args:
        folder: where the logs of every run go.
        crews: the agents to use; without them it has its own.
        defaults: settings of clusters that do not say otherwise.
    """

    def __init__(self, folder: Path, crews: Crews | None = None, **defaults: Any) -> None:  # noqa: ANN401 - see below
        self._folder = folder
        self._crews = crews or Crews(folder)
        self._owned = crews is None
        self._defaults = defaults
        self._made: list[Cluster] = []

    def __enter__(self) -> Clusters:
        return self

    def __exit__(self, *_: object) -> None:
        for cluster in self._made:
            cluster.close()
        if self._owned:
            self._crews.close()

    @plainly
    def __call__(self, workers: int | None = None, **settings: Any) -> Cluster:  # noqa: ANN401 - see below
        """A cluster; starts nothing yet.

        Args:
            workers: how many; 2 unless the defaults say otherwise.
            settings: see ``launcher/testing/settings.py``.

        Raises:
            RequestError: it cannot be, or this is a task of a cluster itself.
            UnavailableError: there is no memory for it.
        """
        asked = {**self._defaults, **settings}
        if workers is not None:
            asked["workers"] = workers
        cluster = Cluster(settings_of(self._folder, asked), self._crews)
        self._made.append(cluster)
        return cluster

    def sections(self) -> Iterator[tuple[str, str]]:
        """What the tasks of each run have printed, as (task, text), each once."""
        for cluster in self._made:
            yield from cluster.sections()


class Cluster:
    """Some tasks, and what happens to them. It runs one thing at a time."""

    def __init__(self, config: Settings, crews: Crews) -> None:
        self._config = config
        self._crews = crews
        self._runs: list[UnderWay] = []
        self._shown = 0
        self._faults = Faults()
        seats = placement.seats(config, [host.address for host in config.hosts])
        self.labels = tuple(f"{job} {index}" for job, index, _ in seats)

    @plainly
    def run(self, function: Callable[..., object], /, *args: object, **kwargs: object) -> list[Any]:
        """Call a function in every task. Returns what each returned, in order of the tasks.

        Raises:
            TaskFailed: it failed in a task.
            TflaunchError: it did not come to that.
        """
        return self.start(function, *args, **kwargs).result()

    @plainly
    def start(self, function: Callable[..., object], /, *args: object, **kwargs: object) -> UnderWay:
        """Call a function in every task, and go on as soon as all tasks are there."""
        return self._start(Work.of(function, args, kwargs))

    @plainly
    def run_script(self, path: str | Path, args: Sequence[str] = ()) -> Ended:
        """Run a script in every task, as ``tflaunch run`` does.

        Raises:
            TaskFailed: it failed in a task.
        """
        ended = self.start_script(path, args).wait()
        ended.results()
        return ended

    @plainly
    def start_script(self, path: str | Path, args: Sequence[str] = ()) -> UnderWay:
        """Run a script in every task, and go on as soon as all tasks are there."""
        return self._start(Work.of_script(Path(path), args))

    # What goes wrong in the next run

    @plainly
    def at_step(self, step: int, *, kill: int | str | None = None, pause: int | str | None = None) -> None:
        """Have a task be killed, or stop, when it has reported this step, or one after it."""
        if kill is None and pause is None:
            raise RequestError("nothing is to happen at that step", "say kill= or pause=, and which task")
        for task, signal in ((kill, "SIGKILL"), (pause, "SIGSTOP")):
            if task is not None:
                self._faults.at_step(step, self._number(task), signal)

    @plainly
    def full_disk(self, path: str | Path, room: int = 0) -> None:
        """Have each task find a disk of its own in place of a directory, with so many bytes left on it."""
        if not Path(path).is_dir():
            raise RequestError(f"no such directory: {path}")
        self._faults.disks.append((os.path.abspath(path), room))  # noqa: PTH100 - a link stays one

    # What happens to the run under way

    @plainly
    def kill(self, task: int | str) -> None:
        """SIGKILL, as the kernel sends it for want of memory."""
        self._under_way().order(self._number(task), "kill")

    @plainly
    def pause(self, task: int | str) -> None:
        """Stop a task (SIGSTOP): it is there, and says nothing, like one whose host hangs."""
        self._under_way().order(self._number(task), "pause")

    @plainly
    def slow(self, task: int | str, *, cpu: float) -> None:
        """Let a task have this share of its time: 20 times a second it is stopped for the rest (SIGSTOP, SIGCONT)."""
        if not 0 < cpu < 1:
            raise RequestError(f"cpu is the share of time that a task runs, between 0 and 1, not {cpu}")
        self._under_way().order(self._number(task), "slow", cpu)

    @plainly
    def resume(self, task: int | str) -> None:
        """Let a task go on that was paused or slowed down."""
        self._under_way().order(self._number(task), "resume")

    @plainly
    def drop_link(self, one: int | str, other: int | str) -> None:
        """Cut the line between two tasks: what they send each other is lost, and nobody is told.

        If nothing runs, the next run begins with it.
        """
        pair = self._pair(one, other)
        if self._runs and not self._runs[-1].over:
            self._runs[-1].order(pair[0], "drop_link", peer=pair[1])
        else:
            self._faults.cut.append(pair)

    @plainly
    def restore_link(self, one: int | str, other: int | str) -> None:
        """Mend the line between two tasks; what was sent in the meantime and is still wanted is sent again."""
        pair = self._pair(one, other)
        self._under_way().order(pair[0], "restore_link", peer=pair[1])

    @plainly
    def until_step(self, step: int, task: int | str = 0) -> None:
        """Wait until a task has reported this step."""
        self._under_way().until_step(step, self._number(task))

    def close(self) -> None:
        """End what still runs."""
        for run in self._runs:
            run.stop()

    def sections(self) -> Iterator[tuple[str, str]]:
        """The last that the tasks of each run have printed, as (task, text), each once."""
        for run in self._runs[self._shown :]:
            for label in run.labels:
                if lines := last_lines(run.run_dir.log_path(label.replace(" ", "-")), _SHOWN):
                    yield label, "\n".join(lines)
        self._shown = len(self._runs)

    def _start(self, work: Work) -> UnderWay:
        if self._runs and not self._runs[-1].over:
            raise RequestError("this cluster runs something already", "wait for it, or make another cluster")
        run_dir = RunDir.named(Path(self._config.run_dir), work.name, warnings.warn)
        run_dir.make()
        call = Call(run_dir.path / "call")
        faults, self._faults = self._faults, Faults()
        call.send(work, faults.by_task(self.labels))
        function = Function(str(call.payload), work.source)
        config = replace(self._config, command=function, name=work.name, cwd=str(Path.cwd()))
        run = UnderWay(config, run_dir, call, self.labels, faults)
        self._runs.append(run)
        run.begin(self._crews)
        return run

    def _under_way(self) -> UnderWay:
        if not self._runs or self._runs[-1].over:
            raise RequestError("nothing runs in this cluster", "start() something in it first")
        return self._runs[-1]

    def _pair(self, one: int | str, other: int | str) -> tuple[int, int]:
        if not self._config.links:
            hint = "make the cluster with links=True"
            raise RequestError("the tasks of this cluster share one address, so there is no line between two", hint)
        pair = self._number(one), self._number(other)
        if pair[0] == pair[1]:
            raise RequestError(f"there is no line from {self.labels[pair[0]]} to itself", "name two tasks")
        return pair

    def _number(self, task: int | str) -> int:
        """The number of a task that is named by it, or by its label, such as ``evaluator 0``."""
        if isinstance(task, int) and 0 <= task < len(self.labels):
            return task
        if task in self.labels:
            return self.labels.index(str(task))
        raise RequestError(f"there is no task {task} in this cluster", f"it has {', '.join(self.labels)}")
