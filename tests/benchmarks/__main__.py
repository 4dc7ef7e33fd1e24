"""Measures tflaunch against its peers: ``python -m tests.benchmarks``, in the repository's root."""

from __future__ import annotations

import resource
import signal
import sys
from typing import TYPE_CHECKING

import click

from launcher.agent import kernel
from tests.benchmarks import case, cases, machine, page, report, results
from tests.benchmarks.page import INTO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@click.command()
@click.option("--only", multiple=True, metavar="CASE", help="Just this case; may be given several times.")
@click.option("--large", is_flag=True, help="Also what takes minutes.")
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="Rounds of each case. Default: its own number.")
@INTO
def main(only: tuple[str, ...], *, large: bool, rounds: int | None, into: Path) -> None:
    """Measure tflaunch against the peers that are installed, interleaved, on this machine.

    What the cases had before is replaced, in the file of results, on the page and in the charts.
    """
    chosen = _chosen(only, large=large)
    into.mkdir(parents=True, exist_ok=True)
    page.rendered(into)  # what cannot take the results shows now, not after minutes
    # Whatever a launcher leaves behind comes back to this process, which ends it.
    kernel.adopt_orphans()
    # As an exception, so that what is running is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _allow_descriptors()
    here, load = machine.describe(), machine.load()
    measured = {}
    for one in chosen:
        click.echo(f"{one.name}: {one.title}", err=True)
        measured[one.name] = results.result(case.run(one, rounds), here, load)
        page.keep(into, measured[one.name])
    page.render(into)
    click.echo(f"{report.summary(chosen, measured)}\n{report.figures(chosen, measured, {})}", nl=False)


def _chosen(only: Sequence[str], *, large: bool) -> list[case.Case]:
    available = cases.every(large=large)
    for name in only:
        if not any(one.chosen_by([name]) for one in available):
            names = ", ".join(one.name for one in available)
            raise click.BadParameter(f"there is no case {name!r}; there are: {names}", param_hint="--only")
    return [one for one in available if not only or one.chosen_by(only)]


def _allow_descriptors() -> None:
    """As many as the machine lets anybody have: a launcher of 1,000 needs some for each, and 1,024 is a common limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
