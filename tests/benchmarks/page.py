"""The page of results, made from the file that they are kept in: ``python -m tests.benchmarks.page``.

A folder has all of it: ``benchmarks.json``, ``benchmarks.md`` and, below ``benchmarks/``, the charts.
"""

from __future__ import annotations

from pathlib import Path

import click

from tests.benchmarks import cases, charts, report, results
from tests.benchmarks.pictures import pictures

DOCS = Path(__file__).parents[2] / "docs"
INTO = click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=DOCS,
    show_default="docs",
    metavar="FOLDER",
    help="Where benchmarks.json, benchmarks.md and the charts are.",
)


def kept(folder: Path) -> list[results.Result]:
    """What was measured before.

    Raises:
        ValueError: the file holds something else.
    """
    return results.load(folder / "benchmarks.json")


def keep(folder: Path, new: results.Result) -> None:
    """Put a result in place of the one that the case had."""
    names = [one.name for one in cases.every(large=True)]
    results.save(folder / "benchmarks.json", results.merge(kept(folder), new, names))


def rendered(folder: Path) -> str:
    """The page as it is to be.

    Raises:
        click.BadParameter: it cannot be made: the file of results holds something else, or the page lacks its markers.
    """
    page = folder / "benchmarks.md"
    try:
        text = page.read_text() if page.exists() else report.empty_page()
        return report.page(text, cases.every(large=True), kept(folder))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{folder}: {error}", param_hint="--into") from None


def render(folder: Path) -> None:
    """Write the page and the charts anew."""
    (folder / "benchmarks.md").write_text(rendered(folder))
    by_name = {one.name: one for one in kept(folder)}
    charts.draw(pictures(cases.every(large=True), by_name).values(), folder / "benchmarks")


@click.command()
@INTO
def main(into: Path) -> None:
    """Make the page and its charts from the results that are kept, without measuring."""
    render(into)


if __name__ == "__main__":
    main()
