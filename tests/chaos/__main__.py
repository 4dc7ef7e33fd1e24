"""The chaos test by hand: ``python -m tests.chaos --seed 7 --cases 50``, in the repository's root."""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

from tests.benchmarks import machine
from tests.chaos import measure, remains, trial
from tests.chaos.grid import sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.chaos.grid import Case
    from tests.chaos.measure import Times


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Decides on the cases, and on their moments.")
@click.option("--cases", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="How many.")
@click.option("--measure", "measures", is_flag=True, help="Each fault in each phase, and a table of how long it took.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Of --measure.")
@click.option("--only", metavar="TEXT", default="", help="Cases whose words have this in them.")
def main(*, seed: int, cases: int, measures: bool, rounds: int, only: str) -> None:
    """Have things go wrong with real trainings, and hold what follows against what is promised."""
    chosen = list(measure.to_measure(rounds, Random(seed))) if measures else sample(seed, cases)
    load = machine.load()
    measured: list[tuple[Case, Times]] = []
    broken = 0
    for case, took in _run([case for case in chosen if only in str(case)]):
        broken += took is None
        if took is not None:
            measured.append((case, took))
    if measures:
        click.echo(
            f"Machine: {machine.describe()}; load average before the start: {load:g}.\n\n{measure.table(measured)}"
        )
    sys.exit(bool(broken))


def _run(cases: Sequence[Case]) -> Iterator[tuple[Case, Times | None]]:
    """Each case with how long it took; None when a promise was broken. Those that cannot be had here are left out."""
    with tempfile.TemporaryDirectory(prefix="tflaunch-chaos-") as folder:
        calm = _calm(Path(folder, "calm"))
        for number, case in enumerate(cases):
            place = Path(folder, str(number))
            place.mkdir()
            try:
                ended = trial.keeps(case, place, calm)
            except trial.Skipped as reason:
                click.echo(f"skipped  {case}: {reason}", err=True)
            except Exception:  # noqa: BLE001 - whatever is broken, the others are to be seen as well
                click.echo(f"BROKEN   {case}\n{traceback.format_exc()}", err=True)
                yield case, None
            else:
                at = ended.faults[0]
                took = measure.times(case, ended.events, at or 0.0)
                click.echo(f"kept     {case}: {took}", err=True)
                yield case, took


def _calm(folder: Path) -> remains.Weights:
    folder.mkdir()
    ended = trial.run(folder)
    if ended.status:
        raise click.ClickException(f"a training to which nothing happens fails:\n{ended.err}")
    return remains.weights(trial.checkpoints(folder))


if __name__ == "__main__":
    main()
