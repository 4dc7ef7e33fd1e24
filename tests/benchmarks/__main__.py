"""Measures tflaunch against its peers: ``python -m tests.benchmarks``, in the repository's root."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.agent import kernel
from tests.benchmarks import case, cases, machine, report

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--only", multiple=True, metavar="CASE", help="Just this case; may be given several times.")
@click.option("--large", is_flag=True, help="Also what takes minutes.")
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="Rounds of each case. Default: its own number.")
@click.option("--json", "json_file", type=_FILE, help="Write every sample to this file.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Put the tables between the markers of this file.")
def main(
    only: tuple[str, ...], *, large: bool, rounds: int | None, json_file: Path | None, markdown_file: Path | None
) -> None:
    """Measure tflaunch against the peers that are installed, interleaved, on this machine."""
    chosen = _chosen(only, large=large)
    if markdown_file is not None:
        _update(markdown_file, "")  # a file that cannot take the tables shows now, not after minutes
    # Whatever a launcher leaves behind comes back to this process, which ends it.
    kernel.adopt_orphans()
    _allow_descriptors()
    described = machine.describe()
    figures = [_run(one, rounds) for one in chosen]
    text = report.markdown(described, figures)
    click.echo(text, nl=False)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(described, figures), indent=2) + "\n")
    if markdown_file is not None:
        _update(markdown_file, text)


def _chosen(only: Sequence[str], *, large: bool) -> list[case.Case]:
    available = cases.every(large=large)
    for name in only:
        if not any(one.chosen_by([name]) for one in available):
            names = ", ".join(one.name for one in available)
            raise click.BadParameter(f"there is no case {name!r}; there are: {names}", param_hint="--only")
    return [one for one in available if not only or one.chosen_by(only)]


def _run(one: case.Case, rounds: int | None) -> case.Figures:
    click.echo(f"{one.name}: {one.title}", err=True)
    return case.run(one, rounds)


def _allow_descriptors() -> None:
    """As many as the machine lets anybody have: a launcher of 1,000 needs some for each, and 1,024 is a common limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _update(path: Path, text: str) -> None:
    try:
        report.write_between_markers(path, text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="--markdown") from None


if __name__ == "__main__":
    main()
