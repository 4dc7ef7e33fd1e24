"""``tflaunch logs``: what the tasks of a run have written, from its files."""

from __future__ import annotations

import re
import sys
import time

import click

from launcher.console import Console
from launcher.errors import RequestError
from launcher.logs import Logs
from launcher.placement import JOBS
from launcher.run_dir import find
from launcher.runs import living, tasks

_TASK = re.compile(rf"({'|'.join(JOBS)})[ :-]?(\d+)")
# A file does not tell that it has grown; people see no difference.
_PAUSE = 0.1


@click.command()
@click.argument("words", metavar="[RUN] [TASK]", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--attempt", type=int, metavar="K", help="Of this attempt, from 0. Default: of all.")
def logs(words: tuple[str, ...], follow: bool, attempt: int | None) -> None:
    """Show what a task of a run has written, or all of them, each line behind the name of its task.

    \b
    tflaunch logs
    tflaunch logs worker 1 -f
    tflaunch logs train-20261123T200324Z-66700d chief-0 --attempt 0

    RUN is the directory of a run, or its name below runs. Without one it is the newest, runs/latest.
    """
    run, task = _parted(words)
    folder = find(run)
    if attempt is not None and not (folder / f"attempt-{attempt}").is_dir():
        raise RequestError(f"{folder} has no attempt {attempt}")
    known = [label.replace(" ", "-") for label in tasks(folder)] + Logs(folder, None, None).slugs
    if task is not None and known and task not in known:
        raise RequestError(f"{folder} has no {task}", f"it has {', '.join(dict.fromkeys(known))}")
    found = Logs(folder, task, attempt)
    with _Page(found, plain=task is not None) as page:
        # Looked at before reading: what is written until then is read.
        while follow and living(folder):
            page.turn()
            time.sleep(_PAUSE)
        page.turn()


class _Page:
    """Where they are shown: one task's as it wrote them, those of several behind their names.

    As a context manager it shows last lines without an end, too.
    """

    def __init__(self, logs: Logs, *, plain: bool) -> None:
        self._logs = logs
        self._plain = plain
        self._console = Console("all")
        self._slugs: list[str] = []
        self._attempt = 0

    def __enter__(self) -> _Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self._console.show()

    def turn(self) -> None:
        """Show what there is by now.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        for attempt, slug, data in self._logs.more():
            if self._plain:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            else:
                self._show(attempt, slug, data)

    def _show(self, attempt: int, slug: str, data: bytes) -> None:
        if slug not in self._slugs or attempt != self._attempt:
            self._finish()
            self._slugs = self._logs.slugs
            self._console.expect({number: name.replace("-", " ") for number, name in enumerate(self._slugs)}, 0)
        if attempt != self._attempt:
            self._attempt = attempt
            self._console.say(f"attempt {attempt}")
        self._console.output(self._slugs.index(slug), data)
        self._console.show()
        if self._console.deserted:
            raise BrokenPipeError

    def _finish(self) -> None:
        for number in range(len(self._slugs)):
            self._console.finish(number)


def _parted(words: tuple[str, ...]) -> tuple[str | None, str | None]:
    """The run and the task's file, as far as they are named: a task is ``worker-1``, ``worker:1``, or ``worker 1``."""
    for count in (2, 1):
        if found := _TASK.fullmatch(" ".join(words[-count:])):
            words, task = words[:-count], f"{found[1]}-{found[2]}"
            break
    else:
        task = None
    if len(words) > 1:
        raise click.UsageError(f"a run and a task are all that can be named, and {words[-1]} is no task")
    return (words[0] if words else None), task
