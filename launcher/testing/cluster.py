"""A cluster as a test has it: runs functions and scripts in its tasks, one after another, and has things go wrong."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import placement, preflight
from launcher.config import Function
from launcher.errors import RequestError
from launcher.layers import Layer
from launcher.run_dir import RunDir, last_lines
from launcher.schema import nearest
from launcher.testing import memory
from launcher.testing.call import Call, Work
from launcher.testing.crew import Crews
from launcher.testing.ended import Unprivileged
from launcher.testing.plainly import plainly
from launcher.testing.under_way import UnderWay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from launcher.config import ClusterConfig
    from launcher.testing.ended import Ended

SOURCE = "tf_cluster()"
# Which function it is to be is known when one is run.
_NONE_YET = "-"
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
    def __call__(self, workers: int | None = None, **settings: Any) -> Cluster:  # noqa: ANN401 - see _config
        """A cluster; starts nothing yet.

        Args:
            workers: how many; 2 unless the defaults say otherwise.
            settings: see ``_config``.

        Raises:
            RequestError: it cannot be, or this is a task of a cluster itself.
            UnavailableError: there is no memory for it.
        """
        asked = {**self._defaults, **settings}
        if workers is not None:
            asked["workers"] = workers
        _require_known(asked)
        cluster = Cluster(_config(self._folder, **asked), self._crews)
        self._made.append(cluster)
        return cluster

    def sections(self) -> Iterator[tuple[str, str]]:
        """What the tasks of each run have printed, as (task, text), each once."""
        for cluster in self._made:
            yield from cluster.sections()


class Cluster:
    """Some tasks, and what happens to them. It runs one thing at a time."""

    def __init__(self, config: ClusterConfig, crews: Crews) -> None:
        self._config = config
        self._crews = crews
        self._runs: list[UnderWay] = []
        self._shown = 0
        self._steps: dict[int, list[tuple[int, str]]] = {}
        self._disks: list[tuple[str, int]] = []
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
        if not Path(path).exists():
            raise RequestError(f"no such script: {path}")
        return self._start(Work(Path(path).stem, script=(str(path), *map(str, args))))

    # What goes wrong in the next run

    @plainly
    def at_step(self, step: int, *, kill: int | str | None = None, pause: int | str | None = None) -> None:
        """Have a task be killed, or stop, when it has reported this step, or one after it."""
        for task, name in ((kill, "SIGKILL"), (pause, "SIGSTOP")):
            if task is not None:
                self._steps.setdefault(self._number(task), []).append((step, name))

    @plainly
    def full_disk(self, path: str | Path, room: int = 0) -> None:
        """Have each task find a disk of its own in place of a directory, with so many bytes left on it."""
        if not Path(path).is_dir():
            raise RequestError(f"no such directory: {path}")
        self._disks.append((os.path.abspath(path), room))  # noqa: PTH100 - a link stays one

    @plainly
    def drop_link(self, one: int | str, other: int | str) -> None:
        """Cut the line between two tasks.

        Raises:
            Unprivileged: always: tasks of one machine talk over its loopback, which they all share.
        """
        pair = " and ".join(self.labels[self._number(task)] for task in (one, other))
        raise Unprivileged(f"no line between {pair} to cut: tasks of one machine share its loopback interface")

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
        call.send(work, self._faults())
        config = replace(self._config, command=Function(str(call.payload)), name=work.name, cwd=str(Path.cwd()))
        run = UnderWay(config, run_dir, call, self.labels, stops=self._stops(), deadly=self._are_deadly())
        self._runs.append(run)
        self._steps, self._disks = {}, []
        run.begin(self._crews)
        return run

    def _faults(self) -> Mapping[str, Mapping[str, object]]:
        return {
            label.replace(" ", ":"): {"steps": self._steps.get(number, []), "disks": self._disks}
            for number, label in enumerate(self.labels)
        }

    def _stops(self) -> dict[int, int]:
        found = ((task, [at for at, name in steps if name == "SIGSTOP"]) for task, steps in self._steps.items())
        return {task: min(steps) for task, steps in found if steps}

    def _are_deadly(self) -> bool:
        return any(name == "SIGKILL" for steps in self._steps.values() for _, name in steps)

    def _under_way(self) -> UnderWay:
        if not self._runs or self._runs[-1].over:
            raise RequestError("nothing runs in this cluster", "start() something in it first")
        return self._runs[-1]

    def _number(self, task: int | str) -> int:
        """The number of a task that is named by it, or by its label, such as ``evaluator 0``."""
        if isinstance(task, int) and 0 <= task < len(self.labels):
            return task
        if task in self.labels:
            return self.labels.index(str(task))
        raise RequestError(f"there is no task {task} in this cluster", f"it has {', '.join(self.labels)}")


def _require_known(asked: Mapping[str, object]) -> None:
    known = [name for name in signature(_config).parameters if name != "folder"]
    for name in asked:
        if name not in known:
            raise RequestError(f"a cluster has no setting {name}", nearest(name, known) or f"known: {', '.join(known)}")


def _config(
    folder: Path,
    *,
    workers: int = 2,
    chief: bool = False,
    evaluator: int = 0,
    ps: int = 0,
    gpus: int = 0,
    timeout: float = 120.0,
    grace: float = 30.0,
    env: Mapping[str, str] | None = None,
    ports: str | None = None,
    private: bool = False,
    partition: bool = True,
) -> ClusterConfig:
    """What is asked for. The settings are those of ``tflaunch run``.

    Args:
        gpus: for each task; none unless a test asks for them, so that it is the same test everywhere.
        timeout: seconds that one run may take.
    """
    if task := os.environ.get("TFLAUNCH_TASK"):
        raise RequestError(f"this is {task.replace(':', ' ')} of a cluster already", "start clusters from a test alone")
    values: dict[str, object] = {
        "function": _NONE_YET,
        "workers": workers,
        "jobs": {"chief": int(chief), "evaluator": evaluator, "ps": ps},
        "gpus_per_task": gpus,
        "timeout": timeout,
        "grace": grace,
        "env": dict(env or {}),
        "private": private,
        "partition": partition,
        "run_dir": str(folder),
        **({} if ports is None else {"ports": ports}),
    }
    config = preflight.checked(Layer(SOURCE, values, {name: f"{name}=" for name in values}))
    memory.require(config.workers + config.chief + config.ps + config.evaluator)
    return config
