"""What ``tflaunch check`` says on a login node: Slurm as it is, and whether it would give what a job asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from launcher.errors import UnavailableError
from launcher.slurm import site

if TYPE_CHECKING:
    from launcher.config import ClusterConfig
    from launcher.slurm.site import Site

_HEAD = ("partition", "", "time limit", "nodes", "idle", "cores", "memory", "GPUs")


def report(config: ClusterConfig, *, as_json: bool) -> int:
    """Print it; returns the exit status."""
    seen = site.look()
    found = list(site.findings(config, seen.partitions))
    bad = [finding for finding in found if finding.state == "bad"]
    if as_json:
        partitions = [one._asdict() for one in seen.partitions]
        told = {"fine": not bad, "slurm": {**seen._asdict(), "partitions": partitions}}
        click.echo(json.dumps({**told, "findings": [finding._asdict() for finding in found]}, indent=2))
        return UnavailableError.exit_status if bad else 0
    click.echo(f"Slurm {seen.version} · {seen.controller} · knows you by {seen.vouching or 'itself'}\n")
    click.echo("\n".join(_table(seen)))
    for finding in found:
        click.secho(
            f"\n{'!' if finding.state == 'bad' else '?'} {finding.why}", fg="red" if finding in bad else "yellow"
        )
        if finding.remedy:
            click.echo(f"  {finding.remedy}")
    words = f"{len(bad)} thing{'s' * (len(bad) > 1)} would stop a job" if bad else "a job can be submitted"
    click.secho(f"\n{words}", fg="red" if bad else "green")
    return UnavailableError.exit_status if bad else 0


def _table(seen: Site) -> list[str]:
    rows = [_HEAD]
    for one in seen.partitions:
        kind = " ".join(["default"] * one.usual + ["down"] * (not one.up))
        memory = f"{one.memory / 1024:.3g} GiB"
        rows.append(
            (one.name, kind, one.limit, str(one.nodes), str(one.idle), str(one.cores), memory, one.gpus or "none")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
