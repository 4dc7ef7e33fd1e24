"""The main path of a run, from configuration to outcome."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import engines, events, preflight
from launcher.agent import kernel
from launcher.run_dir import OUTCOME, RunDir
from launcher.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher import restart
    from launcher.agents import Agents
    from launcher.config import ClusterConfig
    from launcher.console import Console
    from launcher.loop import Loop
    from launcher.outcome import Outcome
    from launcher.plan import Plan


def run(config: ClusterConfig, console: Console) -> Outcome:
    """Run a cluster to its end.

    Raises:
        TflaunchError: it did not come to starting workers; the class says who is to blame.
    """
    engine = engines.load(config.engine)
    preflight.require(config)
    forwarded = preflight.forwarded(config, os.environ)
    run_dir = RunDir.named(Path(config.run_dir), config.name, console.say)
    try:
        run_dir.make()
        outcome = _run_in(run_dir, config, engine, forwarded, console)
        run_dir.write(OUTCOME, outcome.as_json())
    except (Exception, KeyboardInterrupt) as error:
        from launcher.outcome import failure

        if run_dir.path.is_dir():
            run_dir.write(OUTCOME, failure(error))
        raise
    finally:
        run_dir.close()
        kernel.restore_descriptors()
    return outcome


def _run_in(
    run_dir: RunDir, config: ClusterConfig, engine: engines.Engine, forwarded: dict[str, str], console: Console
) -> Outcome:
    channels = engines.open_all(engine, config, run_dir)
    kernel.allow_descriptors()
    # Imported while the agents start: on two cores this time is nobody's.
    from launcher import outcome, restart
    from launcher.agents import Agents
    from launcher.attempt import Attempt
    from launcher.loop import Loop
    from launcher.supervisor import Supervisor

    tries: list[restart.Try] = []
    with Loop(console, engine.silence) as loop, Agents.behind(channels, loop, run_dir) as agents:
        whole = settle(config, agents, run_dir, forwarded)
        console.introduce(whole, run_dir.path)
        while True:
            supervisor = Supervisor(whole)
            Attempt(whole, agents, loop, run_dir, console).run(supervisor)
            tries.append(supervisor.attempt())
            decision = restart.decide(config, tries, int.from_bytes(os.urandom(2), "big") / 65_535)
            if isinstance(decision, restart.Enough) or not _pause(decision, tries[-1], config, loop, console):
                break
            agents.revive(lambda host: engines.open_one(engine, config, host, run_dir))
            run_dir.begin(len(tries))
            whole = settle(config, agents, run_dir, forwarded, attempt=len(tries))
            console.follow(whole)
    enough = decision.why if isinstance(decision, restart.Enough) else ""
    return outcome.conclude(whole, supervisor, run_dir, tries[:-1], enough)


def _pause(again: restart.Again, last: restart.Try, config: ClusterConfig, loop: Loop, console: Console) -> bool:
    """Say what is about to happen and wait for it; False when somebody, a host that goes down, or the run's deadline comes in between."""
    verdict = last.verdict
    who = f"{verdict.cause.label}: " if verdict.cause else ""
    when = f"in {again.delay:.1f} s" if again.delay else "now"
    where = last.stacks.shown() if last.stacks is not None else []
    count = f"restart {again.used} of {config.max_restarts}"
    console.say("\n".join([f"{who}{verdict.reason}", *where, f"starting again {when} ({count})"]))
    loop.set_timer("again", again.delay)
    while True:
        for event in loop.wait():
            match event:
                case events.Signalled() | events.HostTerminated() | events.DeadlinePassed("run"):
                    return False
                case events.DeadlinePassed("again"):
                    return True


def settle(
    config: ClusterConfig,
    agents: Agents,
    run_dir: RunDir,
    forwarded: Mapping[str, str],
    *,
    addresses: Mapping[int, str] | None = None,
    attempt: int = 0,
) -> Plan:
    """Meet the agents, give every task its place and its port, and keep the plan that comes of it.

    ``addresses`` are those of tasks that have one of their own.

    Raises:
        TflaunchError: what was asked for is not there.
    """
    from launcher import placement, plan, warmth

    facts = agents.meet()
    hosts = [placement.found(spec, facts[spec.address]) for spec in config.hosts]
    tasks = placement.place(config, hosts)
    ports = agents.lease(placement.dialled(tasks), config.ports)
    python, warm = preflight.interpreter(config), warmth.decide(config, tasks)
    whole = plan.make(
        config,
        tasks,
        hosts,
        python,
        forwarded,
        run=run_dir.path.name,
        ports=ports,
        warmth=warm,
        addresses=addresses,
        attempt=attempt,
    )
    run_dir.write("run.json", {**whole.as_json(), "versions": _versions(facts)})
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
    hosts = [placement.found(spec, engine.peek(spec) if engine else None) for spec in config.hosts]
    tasks = placement.place(config, hosts)
    # A plan for other hosts may be looked at where what they are to be forwarded is not set; values are not shown anyway.
    forwarded = preflight.forwarded(config, os.environ) if local else dict.fromkeys(config.forward, "")
    python, run_name, warm = preflight.interpreter(config), f"{config.name}-<time>-<id>", warmth.decide(config, tasks)
    return plan.make(config, tasks, hosts, python, forwarded, run=run_name, warmth=warm)
