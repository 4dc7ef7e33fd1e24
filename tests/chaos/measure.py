"""How long it took: from a fault to the first that the launcher heard of it, and to the next new step. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.chaos.grid import AGENT, FAULTS, PHASES, STEPS, at_random, cells
from tests.chaos.promise import promised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from random import Random

    from tests.chaos.grid import Case, Fault, Phase, Victim

# Of whom a line of the table is, in words.
_WHOM: tuple[tuple[str, tuple[Victim, ...]], ...] = (("worker", ("worker", "chief")), ("agent", AGENT))
_NEWS = {"error", "exit", "preempted", "checkpoint-failed"}
_ENDS = {"goes on": "goes on", "stops": "stops", "is refused": "refused"}


class Times(NamedTuple):
    """In seconds from the fault on.

    Attributes:
        heard: until the launcher had the first event that tells of it; None where nothing ever does.
        back: until a step was made that had not been made before; None where there was none to make.
    """

    heard: float | None
    back: float | None


def times(case: Case, events: Sequence[Mapping[str, Any]], at: float) -> Times:
    """What the events of a run tell, in which the case happened at this time."""
    news = [event["time"] for event in events if event["time"] >= at and _tells(case, event)]
    steps = [(one["time"], one["step"]) for one in _reports(events) if one["kind"] == "progress"]
    new = [time for time, step in steps if step > _made(case)]
    return Times(min(news, default=at) - at if news else None, min(new) - at if new else None)


def to_measure(rounds: int, random: Random) -> Iterator[Case]:
    """Every cell, so often."""
    for _ in range(rounds):
        for cell in cells():
            yield at_random(cell, random)


def table(measured: Iterable[tuple[Case, Times]]) -> str:
    """The medians in Markdown: faults by phases."""
    found: dict[tuple[Fault, str, Phase], list[tuple[Case, Times]]] = {}
    for case, took in measured:
        whom = next(words for words, victims in _WHOM if case.victim in victims)
        found.setdefault((case.fault, whom, case.phase), []).append((case, took))
    lines = [f"| fault, to a | {' | '.join(PHASES)} |", f"| --- {'| --- ' * len(PHASES)}|"]
    for whom, _ in _WHOM:
        for fault in FAULTS:
            row = [_cell(found.get((fault, whom, phase), [])) for phase in PHASES]
            if any(row):
                whose = "chief" if fault == "full disk" else whom
                lines.append(f"| {fault}, {whose} | {' | '.join(row)} |")
    return "\n".join(lines)


def _made(case: Case) -> int:
    """How many steps all workers have made when it happens."""
    return STEPS if case.phase == "finishing" else case.step


def _tells(case: Case, event: Mapping[str, Any]) -> bool:
    if case.victim in AGENT:
        return event["event"] in {"AgentLost", "HostTerminated"}
    task = 0 if case.victim == "chief" else 1
    if event.get("task") != task:
        return False
    kind = event["record"].get("kind") if event["event"] == "TaskReport" else None
    return event["event"] in {"TaskExited", "TaskStopped"} or kind in _NEWS


def _reports(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (event["record"] for event in events if event["event"] == "TaskReport" and "kind" in event["record"])


def _cell(measured: Sequence[tuple[Case, Times]]) -> str:
    """As ``0.02 → 2.9``, and how it ends where nothing comes back; cases of one cell may end differently."""
    groups: dict[str, list[Times]] = {}
    for case, took in measured:
        groups.setdefault(_ENDS.get(promised(case).end, ""), []).append(took)
    return "; ".join(_group(words, took) for words, took in sorted(groups.items()))


def _group(words: str, measured: Sequence[Times]) -> str:
    heard = [one.heard for one in measured if one.heard is not None]
    back = [one.back for one in measured if one.back is not None]
    first = f"{median(heard):.2f}" if heard else ""
    if words:
        return f"{first} {words}".strip()
    return f"{first} → {median(back):.1f}" if back else first
