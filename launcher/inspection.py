"""Hosts are asked what is there, and dial each other: all of it for ``tflaunch check``, the cheap half before workers start."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher import checkup, engines, placement, preflight, reach
from launcher.checkup import Finding, Seen
from launcher.config import Module, Program, Script, Trainer
from launcher.errors import TflaunchError, UnavailableError
from launcher.reach import Dialled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from launcher.agents import Agents
    from launcher.config import ClusterConfig
    from launcher.events import HostAnswered
    from launcher.placement import Host
    from launcher.reach import Obstacle

# A packet that nobody answers is sent again after 1, 3 and 7 s (tcp(7), tcp_syn_retries): two chances.
_DIAL = 5.0
# More than an interpreter is given to say what it finds (agent/premises.py).
_PATIENCE = 30.0
# A run is held up for no longer. What a host does not say by then, its workers find out themselves.
_HELD_UP = 10.0
_CLEANING = 50

_Place = tuple[str, int]


class Inspection(NamedTuple):
    """What was found: of each host, between hosts, and of the cluster as a whole."""

    seen: tuple[Seen, ...]
    findings: tuple[Finding, ...]
    obstacles: tuple[Obstacle, ...]

    @property
    def fine(self) -> bool:
        """Nothing would stop a run."""
        return not self.obstacles and all(finding.state != "bad" for finding in self.findings)


def require(
    config: ClusterConfig,
    hosts: Sequence[Host],
    forwarded: Mapping[str, str],
    places: Sequence[_Place],
    agents: Agents,
) -> list[str]:
    """Check what is cheap to check, before workers find it out the hard way. Returns what the reader should know.

    Args:
        places: where workers will dial each other, in the order of tasks: host, and port that is leased and listened on there.

    Raises:
        UnavailableError: a host lacks what is to be run, or hosts cannot reach each other.
    """
    env = {**forwarded, **config.env}
    needs_python = not isinstance(config.command, Program)
    questions = {host.address: _question(config, host, env, python=needs_python) for host in hosts}
    answers = _asked(agents, hosts, questions, places, _HELD_UP)
    if lost := agents.lost(questions):
        raise UnavailableError(f"the agent on {lost[0]} was lost before the workers were started")
    seen = [_seen(host.address, answers, places) for host in hosts]
    lacking = [finding for one in seen if one.premises for finding in _lacks(config, one) if finding.state == "bad"]
    if lacking:
        which = ", ".join(finding.host for finding in lacking if finding.why == lacking[0].why)
        raise UnavailableError(f"{which}: {lacking[0].why}", lacking[0].remedy)
    if between := reach.obstacles([one for host in seen for one in host.dialled or ()], config.ports):
        raise UnavailableError("\n".join(one.reason for one in between), between[0].hint)
    silent = [host for host in questions if host not in answers["premises"]]
    notes = [f"{', '.join(silent)}: no word within {_HELD_UP:g} s of what is there for the workers"] if silent else []
    return [*notes, *checkup.differences(seen)]


def _lacks(config: ClusterConfig, seen: Seen) -> list[Finding]:
    """What a run cannot do without. A script may do without TensorFlow; our trainer does not."""
    trains = isinstance(config.command, Trainer) or (
        isinstance(config.command, Module) and preflight.is_ours(config.command.name)
    )
    needed = checkup.interpreter(config.command, seen) if trains else ()
    return [checkup.program(config.command, seen), *(one for one in needed if one.check == "tensorflow")]


def inspect(config: ClusterConfig, *, clean: bool) -> Inspection:
    """Check all of it, on all hosts at once. ``clean`` ends and deletes what earlier runs have left.

    Raises:
        TflaunchError: it could not be checked at all.
    """
    import tempfile

    from launcher.agents import Agents
    from launcher.console import Console
    from launcher.loop import Loop
    from launcher.run_dir import RunDir

    engine = engines.load(config.engine)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tflaunch-check-")))
        console = stack.enter_context(Console("none"))
        run_dir = RunDir.named(folder, config.name, console.say)
        run_dir.make()
        stack.callback(run_dir.close)
        loop = stack.enter_context(Loop(console, engine.silence))
        docks = engines.Docks(engine, replace(config, lease=0.0), run_dir)
        agents = stack.enter_context(Agents(docks, {}, loop, run_dir))
        return _inspect(config, agents, clean=clean)


def _inspect(config: ClusterConfig, agents: Agents, *, clean: bool) -> Inspection:
    gone = agents.seek([spec.address for spec in config.hosts])
    facts = {spec.address: agents.facts(spec.address) for spec in config.hosts if spec.address not in gone}
    faults: list[Finding] = []
    hosts, places = _places(config, agents, facts, faults)
    faults += _lacking_from_tree(config)
    questions = {host.address: _question(config, host, config.env, python=True) for host in hosts}
    answers = _asked(agents, hosts, questions, places, _PATIENCE, leftovers=True)
    cleaned = _clean(agents, answers) if clean else {}
    for host in agents.lost(facts):
        gone[host] = UnavailableError("its agent was lost while it was asked", "look at the network between it and you")
    seen = [
        Seen(spec.address, gone[spec.address].args[0].removeprefix(f"{spec.address}: "), gone[spec.address].hint)
        if spec.address in gone
        else _seen(spec.address, answers, places)._replace(
            took=agents.took(spec.address), facts=facts[spec.address], cleaned=cleaned.get(spec.address, ())
        )
        for spec in config.hosts
    ]
    between = reach.obstacles([one for host in seen for one in host.dialled or ()], config.ports)
    return Inspection(tuple(seen), (*checkup.findings(config.command, seen), *faults), tuple(between))


def _places(
    config: ClusterConfig, agents: Agents, facts: Mapping[str, Mapping[str, object]], faults: list[Finding]
) -> tuple[list[Host], list[_Place]]:
    """The hosts that are there, and ports that are leased on them, as many as their tasks need."""
    hosts: list[Host] = []
    try:
        every = [placement.found(spec, facts.get(spec.address), config.python, config.subnet) for spec in config.hosts]
        hosts = [host for host in every if host.address in facts]
        needs = {
            host: numbers
            for host, numbers in placement.dialled(placement.place(config, every)).items()
            if host in facts
        }
        ports = agents.lease(needs, config.ports, listen=True)
    except TflaunchError as error:
        faults.append(Finding("", "placement", "bad", "no", error.args[0], error.hint))
        return hosts, []
    numbered = sorted((number, host) for host, numbers in needs.items() for number in numbers)
    return hosts, [(host, ports[number]) for number, host in numbered]


def _question(config: ClusterConfig, host: Host, env: Mapping[str, str], *, python: bool) -> dict[str, object]:
    """What a host is to look for (``agent/premises.py``)."""
    script, program, modules = "", "", ["tensorflow", "keras"]
    match config.command:
        case Script(path):
            script = path
        case Module(name) if not preflight.is_ours(name):
            modules.append(name)
        case Program(argv):
            program = argv[0]
        case Trainer(task):
            script = task.rpartition(":")[0]
    # What is copied there is looked for here.
    comes_along = config.sync is not None and host.code and not host.folder
    return {
        "python": (host.python or preflight.interpreter(config)) if python else "",
        "modules": [name for name in modules if not comes_along or name in {"tensorflow", "keras"}],
        "folder": "" if comes_along else host.folder or preflight.folder(config),
        "script": "" if comes_along else script,
        "program": "" if comes_along and "/" in program else program,
        "env": dict(env),
    }


def _lacking_from_tree(config: ClusterConfig) -> list[Finding]:
    """Whether the script is among the files that are copied to the hosts."""
    tree = preflight.tree(config, Path(config.run_dir))
    if tree is None or not isinstance(config.command, Script) or Path(config.command.path).is_absolute():
        return []
    script = os.path.normpath(config.command.path)
    if any(path == script or path.startswith(f"{script}/") for path, *_ in tree.entries):
        return []
    why = f'the script is not among the files that "sync" copies: {script}'
    return [Finding("", "program", "bad", "no", why, "is it there, and does git ignore it? Or name it in sync")]


def _asked(
    agents: Agents,
    hosts: Sequence[Host],
    questions: Mapping[str, Mapping[str, object]],
    places: Sequence[_Place],
    seconds: float,
    *,
    leftovers: bool = False,
) -> dict[str, dict[str, HostAnswered]]:
    """Ask all of it at the same time. Every leased port is listened on, and not any more afterwards."""
    at = {host.address: host.dialled_at or host.address for host in hosts}
    dial = {
        host: {"places": [(at[callee], port) for callee, port in _dialled_by(host, places)], "seconds": _DIAL}
        for host in questions
    }
    asked: dict[str, Mapping[str, Mapping[str, object]]] = {"dial": dial, "premises": questions}
    if leftovers:
        asked["leftovers"] = _each(questions, {})
    answers = agents.ask_all(asked, seconds)
    # A worker of the fastest host is not to be taken in by what listens on the slowest.
    agents.ask("deafen", _each(questions, {}), _DIAL)
    return answers


def _dialled_by(host: str, places: Sequence[_Place]) -> list[_Place]:
    """All but its own. The first task alone is dialled by itself: by TensorFlow, at the address that others dial, too."""
    leader = places[0][0] if places else ""
    return [place for place in places if host == leader or place[0] != host]


def _each(hosts: Iterable[str], question: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    return dict.fromkeys(hosts, question)


def _seen(host: str, answers: Mapping[str, Mapping[str, HostAnswered]], places: Sequence[_Place]) -> Seen:
    premises, dial, left = (answers.get(about, {}).get(host) for about in ("premises", "dial", "leftovers"))
    dialled = None
    if dial is not None and dial.said is not None:
        tried = zip(_dialled_by(host, places), dial.said, strict=True)
        dialled = [Dialled(host, *place, **told) for place, told in tried]
    # The answer that came the fastest says the most of the clock.
    ahead = max((one.ahead for one in (premises, dial, left) if one is not None), default=0.0)
    return Seen(
        host,
        ahead=ahead,
        premises=None if premises is None else premises.said,
        dialled=dialled,
        left=None if left is None else left.said,
    )


def _clean(agents: Agents, answers: dict[str, dict[str, HostAnswered]]) -> dict[str, list[str]]:
    """End and delete what is left; ``answers`` have in the end what is left of that. Returns what is gone, by host."""
    lost = {host: _lost(answer) for host, answer in answers["leftovers"].items()}
    for host, runs in lost.items():
        for run in runs:
            agents.order(host, "sweep", run=run)
    deleted = agents.ask("tidy", _each(lost, {}), _PATIENCE)
    for _ in range(_CLEANING):
        answers["leftovers"] = agents.ask("leftovers", _each(lost, {}), _PATIENCE)
        if not any(_lost(answer) for answer in answers["leftovers"].values()):
            break
        agents.rest(0.1)  # what was killed takes a moment to go
    return {host: [*runs, *(deleted[host].said or () if host in deleted else ())] for host, runs in lost.items()}


def _lost(answer: HostAnswered) -> list[str]:
    return [one["run"] for one in (answer.said or {"runs": ()})["runs"] if not one["alive"]]
