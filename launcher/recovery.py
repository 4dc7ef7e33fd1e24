"""From an attempt that failed to the plan of the next one: the decision, the pause, and the hosts that are there for it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from launcher import placement
from launcher.errors import DeadlineError, Interrupted, TflaunchError
from launcher.restart import Again, Enough, Try, decide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.agents import Agents
    from launcher.config import ClusterConfig
    from launcher.console import Console
    from launcher.plan import Plan
    from launcher.verdict import Verdict


class Settle(Protocol):
    """``run.settle``, with all that stays the same from attempt to attempt."""

    def __call__(self, config: ClusterConfig, /, *, attempt: int = 0) -> Plan:
        """The plan of this attempt."""


class Recovery:
    """What comes after each attempt of a run.

    Attributes:
        tries: the attempts that are over. One for which a host was missing is one of them.
        gone: the hosts that the last plan does without, and why each is not there.
    """

    def __init__(
        self,
        config: ClusterConfig,
        agents: Agents,
        console: Console,
        settle: Settle,
    ) -> None:
        self.tries: list[Try] = []
        self.gone: Mapping[str, str] = {}
        self._config = config
        self._agents = agents
        self._console = console
        self._settle = settle

    def after(self, last: Try) -> Plan | Enough:
        """The plan of the next attempt, once all is ready for it, or why there is none."""
        self.tries.append(last)
        while True:
            decision = decide(self._config, self.tries, int.from_bytes(os.urandom(2), "big") / 65_535)
            if isinstance(decision, Enough):
                return decision
            try:
                self._pause(decision, self.tries[-1])
                return self._prepare()
            except (Interrupted, DeadlineError) as error:
                return Enough(f"not starting again: {error.args[0]}")
            except TflaunchError as error:
                self.tries.append(Try(_missing(self.tries[-1].verdict, error)))

    def _pause(self, again: Again, last: Try) -> None:
        verdict = last.verdict
        who = f"{verdict.cause.label}: " if verdict.cause else ""
        when = f"in {again.delay:.1f} s" if again.delay else "now"
        where = last.stacks.shown() if last.stacks is not None else []
        count = f"restart {again.used} of {self._config.max_restarts}"
        self._console.say("\n".join([f"{who}{verdict.reason}", *where, f"starting again {when} ({count})"]))
        self._agents.rest(again.delay)

    def _prepare(self) -> Plan:
        gone = self._agents.revive()
        plan = self._settle(placement.without(self._config, gone), attempt=len(self.tries))
        self._tell(gone, plan)
        self.gone = gone
        return plan

    def _tell(self, gone: Mapping[str, str], plan: Plan) -> None:
        news = [f"going on without {host}: {why}" for host, why in gone.items() if host not in self.gone]
        news += [f"{host} is back" for host in self.gone if host not in gone]
        if news:
            self._console.say("\n".join([*news, plan.summary]))


def _missing(last: Verdict, error: TflaunchError) -> Verdict:
    """Of an attempt that did not come to starting its workers; what became of them is what it was before."""
    return replace(
        last,
        status="unavailable",
        exit_status=69,
        cause=None,
        reason=error.args[0],
        hint=error.hint,
        alike=(),
        exception="",
        transient=True,
    )
