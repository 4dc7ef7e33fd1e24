"""Whether all tasks of a cluster have come to listen for their peers, who would wait for them without limit. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.placement import Task
    from launcher.plan import Plan

# Within as many seconds all tasks of a cluster must listen.
JOIN = 180.0


class Joining:
    """What the agents say of who listens.

    Attributes:
        seconds: the deadline, from the start; 0: there is none.
    """

    def __init__(self, plan: Plan) -> None:
        jobs = {task.job for task in plan.tasks}
        # A chief of parameter servers dials and is not dialled.
        waiting = {"worker", "ps"} if "ps" in jobs else {"chief", "worker"}
        self._expected = [task for task in plan.tasks if task.job in waiting]
        self._ports = {number: int(place.rpartition(":")[2]) for place, number in plan.places.items()}
        asked = plan.config.join_deadline
        self._strict = asked is not None
        self.seconds = 0.0 if len(self._expected) < 2 else JOIN if asked is None else asked
        self._unheard: set[str] = set()
        self._listening: set[int] = set()

    def ask(self, hosts: Iterable[str]) -> list[str]:
        """Begin to hear the agents of these hosts; returns them."""
        self._unheard = set(hosts)
        self._listening.clear()
        return sorted(self._unheard)

    def hear(self, host: str, ports: Iterable[int]) -> bool:
        """Take in the leased ports of a host on which somebody listens; whether all hosts have been heard."""
        there = set(ports)
        self._unheard.discard(host)
        self._listening |= {
            task.number for task in self._expected if task.host == host and self._ports.get(task.number) in there
        }
        return not self._unheard

    def late(self, over: Iterable[int]) -> list[Task]:
        """The tasks that do not listen and are not ``over``."""
        there = self._listening | set(over)
        return [task for task in self._expected if task.number not in there]

    @property
    def nobody_waits(self) -> bool:
        """No task listens, and nobody has said that they must: data that takes long to get, or no cluster at all."""
        return not self._strict and not self._listening
