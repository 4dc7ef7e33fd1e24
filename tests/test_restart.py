from __future__ import annotations

from typing import Any

import pytest

from launcher.config import ClusterConfig, HostSpec, Program
from launcher.placement import Task
from launcher.restart import Again, Enough, Try, decide
from launcher.verdict import Verdict

TASK = Task(1, "worker", 1, "a")


def config(**settings: Any) -> ClusterConfig:
    chosen = {"max_restarts": 3, **settings}
    return ClusterConfig(command=Program(("true",)), name="t", engine="x", hosts=(HostSpec("a"),), workers=2, **chosen)


def failed(reason: str = "killed by SIGKILL", status: int = 137, step: int | None = None, **more: Any) -> Try:
    good = more.pop("good", 0.0)
    return Try(Verdict("failed", status, TASK, reason, "", {}, **more), step, good)


def raised(kind: str, message: str = "no", **more: Any) -> Try:
    return failed(f"{kind}: {message}", 1, exception=kind, **more)


class TestWhen:
    def test_the_first_is_at_once_and_each_further_pause_is_twice_as_long(self) -> None:
        made = [decide(config(max_restarts=9), [failed()] * count, 1.0) for count in range(1, 6)]
        assert made == [Again(0, 1), Again(1, 2), Again(2, 3), Again(4, 4), Again(8, 5)]

    def test_chance_has_the_upper_half(self) -> None:
        assert decide(config(backoff=10.0), [failed()] * 2, 0.0) == Again(5, 2)

    def test_no_pause_is_without_end(self) -> None:
        assert decide(config(max_restarts=2_000), [failed()] * 1500, 1.0) == Again(300, 1500)

    def test_a_lost_agent_is_a_reason(self) -> None:
        assert decide(config(), [Try(Verdict("unavailable", 69, None, "lost", "", {}))], 0.0) == Again(0, 1)


class TestEnough:
    @pytest.mark.parametrize("status", ["ok", "interrupted", "deadline"])
    def test_what_is_no_failure(self, status: Any) -> None:
        assert decide(config(), [Try(Verdict(status, 0, None, "", "", {}))], 0.0) == Enough()

    def test_nobody_asked_for_restarts(self) -> None:
        assert decide(config(max_restarts=0), [failed()], 0.0) == Enough()

    def test_all_are_used(self) -> None:
        assert decide(config(), [failed()] * 4, 0.0) == Enough("not starting again: 3 restarts have been used")
        assert decide(config(max_restarts=1), [failed()] * 2, 0.0) == Enough(
            "not starting again: 1 restart has been used"
        )

    def test_they_are_given_back_after_good_progress(self) -> None:
        tries = [failed(), failed(), failed(good=600.0)]
        assert decide(config(max_restarts=2), tries, 0.0) == Again(0, 1)
        assert isinstance(decide(config(max_restarts=2, forgive_after=601.0), tries, 0.0), Enough)


class TestHopeless:
    @pytest.mark.parametrize(
        "one", [raised("ImportError"), raised("SyntaxError"), failed("exited", 2), failed("", 127)]
    )
    def test_what_would_fail_again(self, one: Try) -> None:
        assert decide(config(), [one], 0.0) == Enough("not starting again: it would fail in the same way again")

    def test_the_same_exception_at_the_same_step(self) -> None:
        again = decide(config(), [raised("ValueError", step=40), raised("ValueError", step=40)], 0.0)
        assert again == Enough("not starting again: the same ValueError twice after step 40")
        assert decide(config(), [raised("ValueError")] * 2, 0.0) == Enough(
            "not starting again: the same ValueError twice before its first step"
        )

    @pytest.mark.parametrize(
        "tries",
        [
            [raised("ValueError", step=40), raised("ValueError", step=50)],
            [raised("ValueError", "one"), raised("ValueError", "another")],
            [raised("ConnectionError", transient=True)] * 2,
            [failed("exited with status 1", 1)] * 2,
        ],
    )
    def test_another_one_or_one_that_comes_and_goes(self, tries: list[Try]) -> None:
        assert isinstance(decide(config(), tries, 0.0), Again)

    def test_what_is_named(self) -> None:
        never = config(never_restart=("ValueError", "3"))
        assert decide(never, [raised("ValueError")], 0.0) == Enough(
            "not starting again: never_restart names ValueError"
        )
        assert decide(never, [failed("exited", 3)], 0.0) == Enough("not starting again: never_restart names 3")
        assert isinstance(decide(never, [failed("exited", 4)], 0.0), Again)
        always = config(always_restart=("ImportError", "2"))
        assert isinstance(decide(always, [raised("ImportError")] * 2, 0.0), Again)
        assert isinstance(decide(always, [failed("exited", 2)], 0.0), Again)
