"""``tflaunch explain``: what a TF_CONFIG means, and what is wrong with it."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.errors import RequestError
from launcher.tf_config import Finding, Task, TfConfig, endpoint, lint, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COLOURS = {"error": "red", "warning": "yellow"}
_NOUNS = {"ps": "parameter server"}
_PROC_NET = Path("/proc/net")
_LISTENING = "0A"


@click.command()
@click.argument("given", metavar="[TF_CONFIG | FILE | -]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def explain(ctx: click.Context, given: str | None, as_json: bool) -> None:
    """Say what a TF_CONFIG means, and what is wrong with it.

    It is taken from the argument, from a file, from standard input (-) or, with no argument, from the environment.
    The exit status is 2 when there is an error in it, else 0.
    """
    config = parse(*_read(given))
    meaning, findings = describe(config), lint(config, listening=_listening(config))
    click.echo(_as_json(meaning, findings) if as_json else _as_text(meaning, findings), color=_colour())
    ctx.exit(2 if any(finding.severity == "error" for finding in findings) else 0)


def describe(config: TfConfig) -> dict[str, str]:
    """What a TF_CONFIG means: topic -> words. Pure; of one that is wrong it says what can be said."""
    if not any(config.cluster.values()):
        return {"cluster": "none: the process trains alone, as if TF_CONFIG were not set"}
    meaning = {"cluster": _cluster(config), "chief": _chief(config), "strategy": _strategy(config)}
    if config.task is None:
        return meaning | {"this task": "not named"}
    return meaning | {"this task": _role(config, config.task)} | _network(config, config.task)


def _cluster(config: TfConfig) -> str:
    counts = [_count(len(listed), _NOUNS.get(job, job)) for job, listed in config.cluster.items() if listed]
    hosts = {address.rpartition(":")[0] for listed in config.cluster.values() for address in listed.values()}
    return f"{' and '.join(', '.join(counts).rsplit(', ', 1))} on {_count(len(hosts), 'host')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _lead(config: TfConfig) -> Task:
    # TensorFlow's own rule, multi_worker_util.is_chief.
    return Task("chief" if "chief" in config.cluster else "worker", 0)


def _chief(config: TfConfig) -> str:
    lead = _lead(config)
    if config.address(lead.job, lead.index) is None:
        return "none"
    return f"{lead}, as there is {'a' if lead.job == 'chief' else 'no'} job named chief"


def _members(config: TfConfig) -> list[tuple[str, int]]:
    return [(job, index) for job in ("chief", "worker") for index in config.cluster.get(job, ())]


def _strategy(config: TfConfig) -> str:
    if "ps" in config.cluster:
        return "ParameterServerStrategy: the chief coordinates, workers compute, parameter servers hold the variables"
    match len(_members(config)):
        case 0:
            return "none: nobody trains"
        case 1:
            return "MultiWorkerMirroredStrategy, though a single process can do without"
        case count:
            return f"MultiWorkerMirroredStrategy: {count} processes train as one, each with all the variables"


def _role(config: TfConfig, task: Task) -> str:
    if task.job == "evaluator":
        # TensorFlow 2.21: an evaluator that creates MultiWorkerMirroredStrategy dies of KeyError('evaluator').
        return f"{task}, outside the collective: evaluates checkpoints under a strategy for one machine"
    if config.address(task.job, task.index) is None:
        return f"{task}, which is not in the cluster"
    if "ps" in config.cluster:
        return f"{task}, which coordinates" if task.job == "chief" else f"{task}, which serves the chief"
    members = _members(config)
    if (task.job, task.index) not in members:
        return f"{task}, outside the collective"
    also = ", and the chief" if (task.job, task.index) == (_lead(config).job, 0) else ""
    return f"{task}, number {members.index((task.job, task.index)) + 1} of {len(members)} in the collective{also}"


def _network(config: TfConfig, task: Task) -> dict[str, str]:
    address = config.address(task.job, task.index)
    if address is None or task.job == "evaluator":
        return {}
    # Seen with TensorFlow 2.21: the server binds [::], whatever the address says.
    port = address.rpartition(":")[2]
    return {"listens": f"on port {port} of every interface; peers dial {address}", "dials": _dials(config, task)}


def _dials(config: TfConfig, task: Task) -> str:
    if "ps" in config.cluster:
        return "all workers and parameter servers" if task.job == "chief" else "its peers, once the chief has called"
    if len(_members(config)) == 1:
        return "nobody: it is alone"
    # Seen with TensorFlow 2.21 and three workers: each dials the lead, and its neighbour in the ring.
    lead = _lead(config)
    if (task.job, task.index) == (lead.job, 0):
        return "other members, as the collective needs; all of them dial it"
    address = config.address(lead.job, 0) or "an address that is not listed"
    return f"{lead} at {address}, which leads, and other members, as the collective needs"


def _read(given: str | None) -> tuple[str, str]:
    """The text to explain, and what to call it in messages."""
    if given is None:
        text, source = os.environ.get("TF_CONFIG"), "TF_CONFIG"
        if text is None:
            raise RequestError("TF_CONFIG is not set", "give it as an argument, as a file, or on standard input (-)")
    elif given.lstrip().startswith("{"):
        text, source = given, "TF_CONFIG"
    elif given == "-":
        text, source = _decoded(sys.stdin.buffer.read(), "standard input"), "standard input"
    else:
        text, source = _decoded(_bytes_of(given), given), given
    if not text.strip():
        raise RequestError(f"{source}: empty")
    return text, source


def _bytes_of(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise RequestError(f"{file}: cannot be read: {error.strerror or error}") from None


def _decoded(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{source}: not UTF-8 at byte {error.start}") from None


def _listening(config: TfConfig) -> frozenset[int] | None:
    """The TCP ports that are listened on here; None where the task is another machine's, or there is no /proc."""
    task = config.task
    address = config.address(task.job, task.index) if task else None
    tables = [table for name in ("tcp", "tcp6") if (table := _PROC_NET / name).exists()]
    if address is None or not tables or not _is_here(address):
        return None
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENING)


def _is_here(address: str) -> bool:
    """Whether the host of ``address`` is this machine: only a machine's own addresses can be bound."""
    import socket

    with suppress(RequestError, OSError, UnicodeError):
        host = endpoint(address).host.strip("[]")
        for family, kind, _, _, place in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with suppress(OSError), socket.socket(family, kind) as probe:
                probe.bind(place)
                return True
    return False


def _as_json(meaning: Mapping[str, str], findings: Sequence[Finding]) -> str:
    return json.dumps({"meaning": meaning, "findings": [finding._asdict() for finding in findings]}, indent=2)


def _as_text(meaning: Mapping[str, str], findings: Sequence[Finding]) -> str:
    lines = [_line(topic, words, "cyan") for topic, words in meaning.items()]
    lines.append("")
    lines += [
        _line(finding.severity, f"{finding.path}: {finding.message} ({finding.hint})", _COLOURS[finding.severity])
        for finding in findings
    ]
    return "\n".join(lines if findings else [*lines, "Nothing is wrong with it."])


def _line(label: str, words: str, colour: str) -> str:
    return f"{click.style(f'{label:<11}', fg=colour)}{words}"


def _colour() -> bool | None:
    # https://no-color.org; None leaves it to click, which colours terminals alone.
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
