"""An agent of this machine that stays from run to run, and those that are at hand.

To start one takes longer than to run a small function in its workers. A run has one for itself; runs at the same time
have one each.
"""

from __future__ import annotations

import os
import select
import threading
import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from launcher import engines, outcome, placement, preflight
from launcher.agents import Agents
from launcher.attempt import Attempt
from launcher.console import Console
from launcher.errors import UnavailableError
from launcher.link import Link
from launcher.loop import Loop
from launcher.reception import Reception
from launcher.run import settle
from launcher.run_dir import RunDir
from launcher.testing.ended import Unprivileged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from launcher.outcome import Outcome
    from launcher.plan import Plan
    from launcher.supervisor import Supervisor
    from launcher.testing.settings import Settings

    Opening = Callable[[Plan, Loop], AbstractContextManager[Supervisor]]

# A task has its place in the cluster from its own plan, not from what started the test.
_NOT_PASSED_ON = ("TF_CONFIG", "TFLAUNCH_")


class Crew:
    """One agent. It gives its tasks the environment that it was started with."""

    def __init__(self, config: Settings, run_dir: RunDir) -> None:
        self._network = (config.private, config.links)
        self._environment = dict(os.environ)
        self._engine = engines.load("local")
        self._docks, host = engines.Docks(self._engine, config, run_dir), config.hosts[0].address
        self._links = {host: Link(host, channel) for host, channel in self._docks.open([host]).items()}

    def fits(self, config: Settings) -> bool:
        """Whether it can run this: it is there, in such a network, and knows no variable that is gone since."""
        known = self._network == (config.private, config.links) and self._environment.keys() <= os.environ.keys()
        return known and not any(link.lost or _speaks(link) for link in self._links.values())

    def run(self, config: Settings, run_dir: RunDir, opening: Opening) -> Outcome:
        """Run a cluster to its end, and give its ports back.

        Args:
            opening: gives the supervisor, when all is settled; the loop is there as long as it is open.

        Raises:
            TflaunchError: it did not come to starting workers.
        """
        config = replace(config, env={**self._since_then(), **config.env})
        with _silent() as console, Loop(console, self._engine.silence) as loop:
            agents = Agents.at_work(self._docks, self._links, loop, run_dir)
            try:
                addresses = _connected(agents, config) if config.links else None
                forwarded = preflight.forwarded(config, os.environ)
                whole = settle(config, agents=agents, run_dir=run_dir, forwarded=forwarded, addresses=addresses)
                console.audience = reception = Reception(run_dir.path)
                reception.begin(whole)
                with opening(whole, loop) as supervisor:
                    Attempt(whole, agents, loop, run_dir, console, reception).run(supervisor)
            finally:
                agents.release()
        return outcome.conclude(whole, supervisor, run_dir)

    def leave(self, run_dir: RunDir) -> None:
        """End the agent, and whatever is left of what it started."""
        with _silent() as console, Loop(console, self._engine.silence) as loop:
            left = {host: link for host, link in self._links.items() if not link.lost}
            Agents.at_work(self._docks, left, loop, run_dir).dismiss()

    def _since_then(self) -> dict[str, str]:
        """The variables that were set since it was started."""
        return {
            name: value
            for name, value in os.environ.items()
            if self._environment.get(name) != value and not name.startswith(_NOT_PASSED_ON)
        }


class Crews:
    """The agents at hand. As a context manager it leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self._run_dir = RunDir.named(folder, "agents", warnings.warn)
        self._idle: list[Crew] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Crews:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def one(self, config: Settings) -> Iterator[Crew]:
        """An agent for one run, which comes back afterwards."""
        crew = self._take(config)
        try:
            yield crew
        finally:
            with self._lock:
                self._idle.append(crew)

    def close(self) -> None:
        """End those that are not in use."""
        with self._lock:
            leaving, self._idle = self._idle, []
        for crew in leaving:
            crew.leave(self._run_dir)
        self._run_dir.close()

    def _take(self, config: Settings) -> Crew:
        with self._lock:
            idle, self._idle = self._idle, []
        fitting = [crew for crew in idle if crew.fits(config)]
        for crew in idle:
            if crew not in fitting:
                crew.leave(self._run_dir)
        with self._lock:
            self._idle += fitting[1:]
            if not self._run_dir.path.exists():
                self._run_dir.make()
        return fitting[0] if fitting else Crew(config, self._run_dir)


def _speaks(link: Link) -> bool:
    """Whether there is something to read: of an agent that has nothing to do, that is its end."""
    poll = select.poll()
    poll.register(link.channel.stdout, select.POLLIN)
    return bool(poll.poll(0))


def _connected(agents: Agents, config: Settings) -> dict[int, str]:
    """Give each task an address of its own; returns them by number.

    Raises:
        Unprivileged: this system does not let us.
    """
    seats = placement.seats(config, [host.address for host in config.hosts])
    tasks: dict[str, list[int]] = {}
    for number, (_, _, host) in enumerate(seats):
        tasks.setdefault(host, []).append(number)
    try:
        agents.meet(list(tasks))
        return agents.connect(tasks)
    except UnavailableError as error:
        raise Unprivileged(error.args[0]) from None


def _silent() -> Console:
    """A console on which nobody looks: what the tasks print is in their logs."""
    return Console("none", stdout=-1, stderr=-1)
