"""Whether to run again after an attempt that failed, and when. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.config import ClusterConfig
    from launcher.stacks import Report
    from launcher.verdict import Verdict

# No pause is longer, in seconds, before chance has its part in it.
_LONGEST = 300.0
# What a program that is run again with the same files and arguments raises again.
_HOPELESS = frozenset({"ModuleNotFoundError", "ImportError", "SyntaxError", "IndentationError", "TabError"})
# Bad usage (argparse, click), and a program that cannot be run (as shells have it).
_HOPELESS_STATUSES = frozenset({2, 126, 127})


class Try(NamedTuple):
    """One attempt that is over.

    Attributes:
        step: the last step that a task of it has told; None when none did.
        good: for how many seconds it has made progress: from its first sign of it to its last.
        stacks: where all tasks were before it was ended, if they were asked.
    """

    verdict: Verdict
    step: int | None = None
    good: float = 0.0
    stacks: Report | None = None


class Again(NamedTuple):
    """Run it again after so many seconds; it is the ``used``-th restart that counts."""

    delay: float
    used: int


class Enough(NamedTuple):
    """Leave it at that; ``why`` is in words where a restart might have been expected, else empty."""

    why: str = ""


def decide(config: ClusterConfig, tries: Sequence[Try], chance: float) -> Again | Enough:
    """What to do after the last of the tries.

    Restarts are counted since the last attempt that made progress for ``forgive_after`` seconds. The first is made at once;
    before each further one the pause doubles, from ``backoff`` seconds on.

    Args:
        chance: from 0 to 1: the pause is that part of its upper half, so that runs that fail together do not return together.
    """
    last = tries[-1].verdict
    if last.status not in {"failed", "hung", "unavailable"} or not config.max_restarts:
        return Enough()
    if why := _hopeless(config, tries):
        return Enough(f"not starting again: {why}")
    used = 0
    for one in tries:
        used = 1 if one.good >= config.forgive_after else used + 1
    if used > config.max_restarts:
        noun = "restart has" if config.max_restarts == 1 else "restarts have"
        return Enough(f"not starting again: {config.max_restarts} {noun} been used")
    pause = min(_LONGEST, config.backoff * 2.0 ** min(used - 2, 60)) if used > 1 else 0.0
    return Again(pause * (1 + chance) / 2, used)


def _hopeless(config: ClusterConfig, tries: Sequence[Try]) -> str:
    """Why another attempt would end as the last did; empty when it may not."""
    last = tries[-1]
    verdict = last.verdict
    if verdict.exception in config.always_restart or str(verdict.exit_status) in config.always_restart:
        return ""
    for never in (verdict.exception, str(verdict.exit_status)):
        if never and never in config.never_restart:
            return f"never_restart names {never}"
    if verdict.exception in _HOPELESS or (verdict.exit_status in _HOPELESS_STATUSES and not verdict.exception):
        return "it would fail in the same way again"
    before = tries[-2] if len(tries) > 1 else None
    if before and verdict.exception and not verdict.transient and _same(before, last):
        where = "before its first step" if last.step is None else f"after step {last.step:,}"
        return f"the same {verdict.exception} twice {where}"
    return ""


def _same(one: Try, other: Try) -> bool:
    return one.step == other.step and one.verdict.reason == other.verdict.reason
