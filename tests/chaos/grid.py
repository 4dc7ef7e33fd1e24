"""Every fault, in every phase of a training, on everybody whom it can hit; and samples of them. Pure."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Phase = Literal["start-up", "join", "first step", "steps", "checkpoint", "finishing"]
Fault = Literal[
    "SIGKILL", "SIGSTOP", "SIGTERM", "exception", "sys.exit", "os._exit", "abort", "out of memory", "full disk"
]
# The agent is two processes: its loop, and its guard.
Victim = Literal["worker", "chief", "loop", "guard"]
# Places in the program (program.py) at which a fault can happen.
Point = Literal[
    "started", "joining", "step", "written", "renaming", "naming", "saving", "exporting", "testing", "leaving"
]

PHASES: tuple[Phase, ...] = get_args(Phase)
FAULTS: tuple[Fault, ...] = get_args(Fault)
VICTIMS: tuple[Victim, ...] = get_args(Victim)
AGENT: tuple[Victim, ...] = ("loop", "guard")
# Of each training: so many steps, and a checkpoint after so many.
STEPS, SAVED_EVERY = 18, 3

_POINTS: Mapping[Phase, tuple[Point, ...]] = {
    "start-up": ("started",),
    "join": ("joining",),
    "first step": ("step",),
    "steps": ("step",),
    "checkpoint": ("written", "renaming", "naming"),
    "finishing": ("saving", "exporting", "testing", "leaving"),
}
_FOR_AGENTS: tuple[Fault, ...] = ("SIGKILL", "SIGSTOP", "SIGTERM")
# When the last picture is written, a disk may fill up as it likes.
_WITHOUT_A_DISK: tuple[Point, ...] = ("testing", "leaving")


class Cell(NamedTuple):
    """One fault in one phase, on one victim."""

    phase: Phase
    fault: Fault
    victim: Victim


class Case(NamedTuple):
    """A cell at one of its moments.

    Attributes:
        step: the one before which it happens, at the point ``step``; in the phase ``checkpoint``, the one that is saved.
    """

    phase: Phase
    fault: Fault
    victim: Victim
    point: Point
    step: int = 0

    @property
    def cell(self) -> Cell:
        return Cell(self.phase, self.fault, self.victim)

    def __str__(self) -> str:
        at = f" {self.step}" if self.phase in {"steps", "checkpoint"} else ""
        return f"{self.fault} on {self.victim}, {self.phase}: {self.point}{at}"


def cells() -> Iterator[Cell]:
    """All that there are."""
    for phase in PHASES:
        for fault in FAULTS:
            for victim in VICTIMS:
                if _is_possible(fault, victim):
                    yield Cell(phase, fault, victim)


def at_random(cell: Cell, random: Random) -> Case:
    """The cell at a random one of its moments."""
    points = [one for one in _POINTS[cell.phase] if cell.fault != "full disk" or one not in _WITHOUT_A_DISK]
    step = 0
    if cell.phase == "steps":
        step = random.randrange(1, STEPS)
    elif cell.phase == "checkpoint":
        # The last step's is not written beside the training.
        step = random.randrange(SAVED_EVERY, STEPS, SAVED_EVERY)
    return Case(*cell, random.choice(points), step)


def sample(seed: int, count: int) -> list[Case]:
    """Cases that cover as much of the grid as so many can: each pair of fault and victim first, and what else is new.

    The same for the same seed; more of them go on where fewer end.
    """
    random = Random(seed)
    left = list(cells())
    random.shuffle(left)
    chosen: list[Case] = []
    seen: set[Sequence[str]] = set()
    while left and len(chosen) < count:
        best = max(left, key=lambda cell: sum(weight for pair, weight in _pairs(cell) if pair not in seen))
        left.remove(best)
        seen.update(pair for pair, _ in _pairs(best))
        chosen.append(at_random(best, random))
    return chosen


def _pairs(cell: Cell) -> list[tuple[tuple[str, str], int]]:
    """What of it another cell may have, too, and how much more it matters than the next."""
    phase, fault, victim = cell
    return [((fault, victim), 4), ((phase, victim), 2), ((phase, fault), 1)]


def _is_possible(fault: Fault, victim: Victim) -> bool:
    if victim in AGENT:
        return fault in _FOR_AGENTS
    # The chief alone writes.
    return fault != "full disk" or victim == "chief"
