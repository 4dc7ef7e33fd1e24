"""``tflaunch init``: a cluster.json to start from, and what every key in it can say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli.schema import document
from launcher.errors import RequestError
from launcher.keys import FILE
from launcher.schema import Key, walk

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = ".tflaunch.schema.json"

STARTER = {"$schema": f"./{SCHEMA}", "script": "train.py", "args": [], "workers": 2}


@click.command()
@click.argument("file", default="cluster.json", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE if it is there.")
def init(file: Path, force: bool) -> None:
    """Write a cluster.json to start from: two workers of train.py on this machine.

    FILE is cluster.json unless you say otherwise. Beside it goes the schema that editors complete and check it with.
    """
    _write(file, STARTER, overwrite=force)
    # A file, since an editor reads it without a network and without settings; and ours, so always up to date.
    _write(file.with_name(SCHEMA), document(), overwrite=True)
    _explain()
    click.echo(f"\nWrote {file}, and {SCHEMA} beside it for your editor.")


def _write(file: Path, content: Mapping[str, object], *, overwrite: bool) -> None:
    import json

    try:
        with file.open("w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(json.dumps(content, indent=2) + "\n")
    except FileExistsError as error:
        raise RequestError(f"{file}: is there already", "--force overwrites it") from error
    except OSError as error:
        raise RequestError(f"{file}: cannot be written: {error.strerror or error}") from error


def _explain() -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # In a pipe every key keeps to one line, for grep.
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    table = Table("key", "default", "meaning", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name, key in walk(FILE):
        table.add_row(Text(name, "cyan"), Text(_default(key), "dim"), Text(key.doc))
    console.print(table)


def _default(key: Key) -> str:
    import json

    return json.dumps(key.default) if key.default is not None else key.otherwise or "-"
