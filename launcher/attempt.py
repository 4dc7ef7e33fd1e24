"""One attempt at a run: carries out what the supervisor commands and tells it what happens, until nothing is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from launcher import events
from launcher.commands import (
    Abandon,
    AskStacks,
    AskWhoListens,
    KeepStacks,
    Kill,
    Say,
    SetLine,
    SetTimer,
    ShowStacks,
    Signal,
    Spawn,
    Stop,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.agents import Agents
    from launcher.commands import Command
    from launcher.console import Console
    from launcher.loop import Loop
    from launcher.plan import Plan
    from launcher.reception import Reception
    from launcher.run_dir import RunDir
    from launcher.supervisor import Supervisor


class Attempt:
    """The edge between the supervisor, which only decides, and the agents, files and console."""

    def __init__(
        self, plan: Plan, agents: Agents, loop: Loop, run_dir: RunDir, console: Console, reception: Reception
    ) -> None:
        self._plan = plan
        self._agents = agents
        self._loop = loop
        self._run_dir = run_dir
        self._console = console
        self._slugs = [task.slug for task in plan.tasks]
        self._told: set[str] = set()
        self._reception = reception

    def run(self, supervisor: Supervisor) -> None:
        """Start the workers and see them through to their end; the supervisor then knows the verdict."""
        self._obey(supervisor.start())
        # Visitors can wait for what their reception imports; the workers, who are ordered by now, need not.
        self._loop.send()
        self._reception.open(self._loop)
        while not supervisor.finished:
            for event in self._loop.wait():
                if isinstance(event, events.TaskOutput):
                    self._run_dir.output(self._slugs[event.task], event.data)
                    self._console.output(event.task, event.data)
                    supervisor.pulse.spoke = True
                else:
                    self._take_in(event, supervisor)

    def _take_in(self, event: events.Event, supervisor: Supervisor) -> None:
        now = time.time()
        match event:
            case events.TaskExited(task):
                self._console.finish(task)
            case events.TaskReport(task, {"kind": "metrics"} as record):
                self._run_dir.metrics(self._plan.tasks[task].label, record)
        self._reception.take(event, now)
        if commands := supervisor.handle(event, now):
            self._obey(commands)
            # Whoever is to be stopped does not wait for a disk.
            self._loop.send()
        # Of stacks, the run directory has a file of its own.
        self._run_dir.event(event._replace(text="") if isinstance(event, events.TaskStacks) else event, now)

    def _obey(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Spawn(number):
                    self._spawn(number)
                case Stop(numbers, grace, look):
                    for host, own in self._by_host(numbers).items():
                        self._agents.order(host, "stop", tasks=own, grace=grace, look=look)
                case Kill(number):
                    self._agents.order(self._host(number), "kill", task=number)
                case Signal(number, name):
                    self._agents.order(self._host(number), "signal", task=number, signal=name)
                case SetLine(one, other, up):
                    between = [self._plan.launches[number].address for number in (one, other)]
                    self._agents.order(self._host(one), "line", between=between, up=up)
                case AskWhoListens(host):
                    self._agents.order(host, "listening")
                case AskStacks(host):
                    self._agents.order(host, "stacks")
                case ShowStacks(report):
                    self._reception.show_stacks(report)
                case KeepStacks(report):
                    self._run_dir.keep_stacks(report.full)
                case Abandon(host):
                    self._agents.abandon(host)
                case SetTimer(name, seconds):
                    self._loop.set_timer(name, seconds)
                case Say(text):
                    self._console.say(text)

    def _spawn(self, number: int) -> None:
        launch = self._plan.launches[number]
        host = launch.task.host
        # Every task's TF_CONFIG has all tasks in it: told to each for itself, that would grow with their square.
        if host not in self._told:
            self._told.add(host)
            self._agents.order(host, "share", text=launch.cluster)
        process = {
            "argv": launch.argv,
            "cwd": launch.cwd,
            "env": {**launch.settings, **self._plan.unseen},
            "cores": launch.task.cores,
        }
        told = {"around": {"TF_CONFIG": launch.around_cluster}, "address": launch.address}
        warm = None if launch.warm is None else {"module": launch.warm.module, "env": launch.warm.early}
        self._agents.order(host, "spawn", task=number, warm=warm, **told, **process)

    def _by_host(self, numbers: Iterable[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number in numbers:
            found.setdefault(self._host(number), []).append(number)
        return found

    def _host(self, number: int) -> str:
        return self._plan.launches[number].task.host
