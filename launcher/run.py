"""The main path of a run, from configuration to outcome."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher import engines, preflight
from launcher.agent import kernel
from launcher.errors import TflaunchError
from launcher.run_dir import OUTCOME, RunDir
from launcher.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from socket import socket

    from launcher.agents import Agents
    from launcher.config import ClusterConfig
    from launcher.console import Console
    from launcher.outcome import Outcome
    from launcher.plan import Plan
    from launcher.tree import Tree


class Background(NamedTuple):
    """What a run that has no terminal is given: its directory, made already, and who waits for it to have started."""

    run_dir: RunDir
    guest: socket


def run(
    config: ClusterConfig, console: Console, background: Background | None = None, into: Path | None = None
) -> Outcome:
    """Run a cluster to its end.

    Args:
        into: the directory to keep it in, where an earlier run may be gone on with; None for a new one.

    Raises:
        TflaunchError: it did not come to starting workers; the class says who is to blame.
    """
    engine, forwarded = ready(config)
    if background is not None:
        run_dir = background.run_dir
        run_dir.warn = console.say
    elif into is not None:
        run_dir = RunDir(into, console.say)
    else:
        run_dir = RunDir.named(Path(config.run_dir), config.name, console.say)
    try:
        if background is None:
            run_dir.make()
        if config.engine == "slurm":
            _keep_job(run_dir)
        outcome = _run_in(run_dir, config, engine, forwarded, console, background and background.guest)
        ended = outcome.as_json()
        run_dir.write(OUTCOME, ended)
        console.end(ended, told=True)
    except (Exception, KeyboardInterrupt) as error:
        from launcher.outcome import failure

        if run_dir.path.is_dir():
            run_dir.write(OUTCOME, failure(error))
        console.end(failure(error), told=False)
        raise
    finally:
        run_dir.close()
        kernel.restore_descriptors()
    return outcome


def _keep_job(run_dir: RunDir) -> None:
    from launcher.slurm import job

    if (own := job.own(os.environ)) is not None:
        job.keep(run_dir, own)


def ready(config: ClusterConfig) -> tuple[engines.Engine, dict[str, str]]:
    """The engine and the variables to forward, of a run for which nothing that can be seen from here is missing.

    Raises:
        TflaunchError: something is.
    """
    engine = engines.load(config.engine)
    preflight.require(config)
    return engine, preflight.forwarded(config, os.environ)


def _run_in(
    run_dir: RunDir,
    config: ClusterConfig,
    engine: engines.Engine,
    forwarded: dict[str, str],
    console: Console,
    guest: socket | None,
) -> Outcome:
    docks = engines.Docks(engine, config, run_dir)
    started = docks.open([host.address for host in config.hosts[: engine.at_once]])
    kernel.allow_descriptors()
    # Imported while the agents start: on two cores this time is nobody's.
    from launcher import outcome
    from launcher.agents import Agents
    from launcher.attempt import Attempt
    from launcher.loop import Loop
    from launcher.reception import Reception
    from launcher.recovery import Recovery
    from launcher.restart import Enough
    from launcher.supervisor import Supervisor

    with (
        Loop(console, engine.silence) as loop,
        Agents(docks, started, loop, run_dir) as agents,
    ):
        console.audience = reception = Reception(run_dir.path, guest)
        reception.expect(loop)
        tree = preflight.tree(config, run_dir.path.parent)
        settled = partial(settle, agents=agents, run_dir=run_dir, forwarded=forwarded, tree=tree)
        recovery = Recovery(config, agents, console, settled)
        whole = settled(config)
        console.introduce(whole, run_dir.path)
        while True:
            supervisor = Supervisor(whole)
            reception.begin(whole, tuple(recovery.gone))
            Attempt(whole, agents, loop, run_dir, console, reception).run(supervisor)
            following = recovery.after(supervisor.attempt())
            if isinstance(following, Enough):
                break
            whole = following
            run_dir.begin(whole.attempt)
            console.follow(whole)
        reception.wind_up()
        end = outcome.conclude(whole, supervisor, run_dir, recovery.tries, following.why, tuple(recovery.gone))
        return _fetched(end, whole, agents, console)


def _fetched(end: Outcome, whole: Plan, agents: Agents, console: Console) -> Outcome:
    """Bring back what was asked for, however the run has ended: a run that was told to stop has saved its work."""
    chief = whole.launches[whole.chief]
    if not whole.config.fetch or chief.cwd is None:
        return end
    try:
        count = agents.fetch(chief.task.host, chief.cwd, whole.config.fetch, Path(preflight.folder(whole.config)))
    except TflaunchError as error:
        return end.without_files(error)
    console.say(f"{count} file{'' if count == 1 else 's'} fetched from {chief.task.host}")
    return end


def settle(
    config: ClusterConfig,
    *,
    agents: Agents,
    run_dir: RunDir,
    forwarded: Mapping[str, str],
    tree: Tree | None = None,
    addresses: Mapping[int, str] | None = None,
    attempt: int = 0,
) -> Plan:
    """Meet the agents, give every task its files, its place and its port, and keep the plan that comes of it.

    ``addresses`` are those of tasks that have one of their own.

    Raises:
        TflaunchError: what was asked for is not there.
    """
    from launcher import compiling, placement, plan, warmth

    # Found out while the agents are on their way, who need as long for it.
    seats = placement.seats(config, [spec.address for spec in config.hosts])
    warm = warmth.decide(config, [address for _, _, address in seats])
    compiled = {} if warm.tasks and warm.warm.module else compiling.keep(config, len(seats), run_dir.path)
    facts = agents.meet([spec.address for spec in config.hosts])
    hosts = [placement.found(spec, facts[spec.address], config.python, config.subnet) for spec in config.hosts]
    there = [host.address for host in hosts if host.code]
    folders = agents.place(tree, there) if tree else dict.fromkeys(there, preflight.folder(config) if there else "")
    hosts = [host._replace(folder=folders.get(host.address, "")) for host in hosts]
    tasks = placement.place(config, hosts)
    inspected = len(hosts) > 1 and not attempt
    ports = agents.lease(placement.dialled(tasks), config.ports, listen=inspected)
    notes = [tree.words] if tree else []
    if inspected:
        from launcher import inspection

        places = [(task.host, ports[task.number]) for task in tasks if task.is_dialled]
        notes += inspection.require(config, hosts, forwarded, places, agents)
    whole = plan.make(
        config,
        tasks,
        hosts,
        preflight.interpreter(config),
        forwarded,
        run=run_dir.path.name,
        ports=ports,
        warmth=warm,
        addresses=addresses,
        attempt=attempt,
        before=run_dir.before,
        notes=notes,
    )
    plan.require_passable(whole)
    whole = replace(whole, unseen=compiled)
    kept = {"tree": tree and tree.as_json(), "versions": _versions(facts)}
    run_dir.write("run.json", {**whole.as_json(), **kept})
    return whole


def _versions(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Of tflaunch, and of each agent's Python."""
    return {"tflaunch": __version__} | {f"agent on {host}": f"Python {one['python']}" for host, one in facts.items()}


def preview(config: ClusterConfig) -> Plan:
    """What ``run`` would do, without starting anything: no port is leased, and other hosts are not asked.

    Raises:
        TflaunchError: it could not be run as it was asked for.
    """
    from launcher import placement, plan, warmth

    local = all(host.is_this_machine for host in config.hosts)
    if local:
        preflight.require(config)
    engine = engines.load(config.engine) if local else None
    seen = [engine.peek(spec) if engine else None for spec in config.hosts]
    hosts = [placement.found(spec, facts, config.python) for spec, facts in zip(config.hosts, seen, strict=True)]
    tasks = placement.place(config, hosts)
    # A plan for other hosts may be looked at where what they are to be forwarded is not set; values are not shown anyway.
    forwarded = preflight.forwarded(config, os.environ) if local else dict.fromkeys(config.forward, "")
    python, run_name = preflight.interpreter(config), f"{config.name}-<time>-<id>"
    warm = warmth.decide(config, [task.host for task in tasks])
    return plan.make(config, tasks, hosts, python, forwarded, run=run_name, warmth=warm)
