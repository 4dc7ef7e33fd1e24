"""Which tasks could not talk though nothing was wrong with either: what is left of a network that failed. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from launcher.placement import Task
    from launcher.verdict import Ending

# TensorFlow 2.21 names whom it called, the innermost call first, each with what came of the one before.
_TARGET = re.compile(r"remote target /job:(\w+)/(?:replica:\d+/)?task:(\d+)")
# How gRPC ends an attempt to connect that nobody answered. "Connection refused" is an answer, by a host that is there.
_NO_ANSWER = re.compile(
    r"failed to connect to all addresses; last error: [^\n]*"
    r"(tcp handshaker shutdown|timed out|timeout|Deadline Exceeded|No route to host|Network is unreachable)",
    re.IGNORECASE,
)
# Where much gets lost but not all, the connection stays, and what fails is a heartbeat. Each task sends its own to the leader.
_HEARTBEAT = re.compile(r"Deadline Exceeded\s+RPC: /tensorflow\.CoordinationService/Heartbeat")


class Cut(NamedTuple):
    """A failure of the network, in words: what happened, and what to look at."""

    reason: str
    hint: str


def cut(endings: Sequence[Ending]) -> Cut | None:
    """What the tasks tell of the network between them; None where they tell of no failure there."""
    pairs = sorted({_pair(*pair) for pair in _severed(endings)}, key=lambda pair: [task.number for task in pair])
    if not pairs:
        return None
    hosts = list(dict.fromkeys(task.host for pair in pairs for task in pair))
    involved = {task for pair in pairs for task in pair}
    others = len(involved) < len(endings)
    shared = set(pairs[0]).intersection(*pairs)
    # With several peers gone at once, it is what they have in common.
    place = f"of {shared.pop().host}" if len(pairs) > 1 and len(shared) == 1 else _between(hosts)
    reason = "; ".join(f"{_at(one, hosts)} and {_at(other, hosts)} could not reach each other" for one, other in pairs)
    return Cut(reason, f"look at the network {place}{'; no other line between tasks failed' if others else ''}")


def tasks_at(places: Iterable[str], known: Mapping[str, int]) -> Iterator[int]:
    """The numbers of the tasks at these places (``address:port``), as far as that is certain.

    Args:
        known: where tasks are dialled. One that has dialled itself has another port, so its address has to tell.
    """
    for place in places:
        address = place.rpartition(":")[0]
        there = {number for one, number in known.items() if one.rpartition(":")[0] == address}
        if place in known:
            yield known[place]
        elif len(there) == 1:
            yield there.pop()


def _severed(endings: Sequence[Ending]) -> Iterator[tuple[Task, Task]]:
    tasks = {(ending.task.job, ending.task.index): ending.task for ending in endings}
    by_number = {ending.task.number: ending.task for ending in endings}
    leader = by_number[min(by_number)] if by_number else None
    for ending in endings:
        yield from ((ending.task, by_number[number]) for number in ending.unanswered)
        message = str((ending.error or {}).get("message", ""))
        called = [tasks.get((job, int(index))) for job, index in _TARGET.findall(message)[:2]]
        if _NO_ANSWER.search(message):
            # Without a second one, who reports it is who called.
            callee, caller = (*called, ending.task)[:2] if called else (None, None)
            if callee is not None and caller is not None:
                yield caller, callee
        elif _HEARTBEAT.search(message):
            sender = called[0] if called else ending.task
            # On one host it is no network that is slow.
            if sender is not None and leader is not None and sender.host != leader.host:
                yield sender, leader


def _pair(one: Task, other: Task) -> tuple[Task, Task]:
    return (one, other) if one.number < other.number else (other, one)


def _at(task: Task, hosts: Sequence[str]) -> str:
    return task.label if len(hosts) == 1 else f"{task.label} on {task.host}"


def _between(hosts: Sequence[str]) -> str:
    if len(hosts) == 1:
        return f"of {hosts[0]}"
    return f"between {', '.join(hosts[:-1])} and {hosts[-1]}: a firewall, a route, a cable"
