"""``launcher.launch``: what ``tflaunch run`` does, for Python programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import preflight
from launcher.console import Console
from launcher.layers import Layer, read_file
from launcher.outcome import Outcome
from launcher.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.verdict import Verdict

SOURCE = "launch()"


@dataclass(frozen=True)
class Result:
    """What became of a run.

    Attributes:
        outcome: the whole of it, as outcome.json has it.
    """

    outcome: Outcome

    @property
    def ok(self) -> bool:
        """All tasks that had to succeed did."""
        return self.outcome.verdict.status == "ok"

    @property
    def exit_status(self) -> int:
        """What ``tflaunch run`` would have ended with."""
        return self.outcome.verdict.exit_status

    @property
    def exit_codes(self) -> Mapping[str, int | None]:
        """``worker 0`` -> its exit code; minus the signal's number where a signal ended it, as subprocess has it."""
        return {one.task.label: -one.signal if one.signal is not None else one.status for one in self.outcome.tasks}

    @property
    def logs(self) -> Mapping[str, Path]:
        """``worker 0`` -> the file with everything that it wrote."""
        return {one.task.label: one.log for one in self.outcome.tasks}

    @property
    def verdict(self) -> Verdict:
        """The root cause and what became of each task."""
        return self.outcome.verdict

    @property
    def run_dir(self) -> Path:
        """Where everything about the run is kept."""
        return self.outcome.run_dir


def launch(
    script: str | Path | None = None,
    args: Sequence[str] = (),
    *,
    module: str | None = None,
    command: Sequence[str] | None = None,
    workers: int | None = None,
    config: str | Path | None = None,
    output: str = "none",
    **settings: Any,  # noqa: ANN401 - the keys of cluster.json, checked like the file's
) -> Result:
    """Run a cluster to its end, as ``tflaunch run`` does.

    Args:
        script: a Python script; or give ``module``, or ``command`` with all its arguments, or let ``config`` name it.
        args: the script's or module's arguments.
        workers: how many; default 1, or as ``config`` says.
        config: a cluster.json, over which everything else is laid.
        output: whose lines to show on standard output: ``all``, ``chief``, ``failed`` or ``none`` (the default here).
        settings: any other key of cluster.json, such as ``env={"K": "V"}``, ``jobs={"evaluator": 1}``, ``grace=5``.

    Returns:
        What became of it. A worker that fails is a Result too, not an exception.

    Raises:
        RequestError: the request cannot be carried out; a ConfigError names every fault in it.
        UnavailableError: something that it needs is not to be had.
        Interrupted: a signal came before the workers started. Later ones stop the run, and its verdict says so. Signals
            are handled when this is called from the main thread, and their handlers are restored at the end.
    """
    given: dict[str, object] = {"script": script and str(script), "module": module, "workers": workers}
    given |= {"command": command and list(command), "args": list(args) or None, "output": output, **settings}
    values = {name: value for name, value in given.items() if value is not None}
    flags = Layer(SOURCE, values, {name: f"{name}=" for name in values})
    chosen = preflight.checked(*([read_file(Path(config))] if config is not None else []), flags)
    with Console(chosen.output) as console:
        outcome = run(chosen, console)
        console.tell(outcome)
    return Result(outcome)
