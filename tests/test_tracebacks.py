from __future__ import annotations

import pytest

from launcher.tracebacks import Tracebacks

HEAD = b"Traceback (most recent call last):"
FRAMES = [b'  File "train.py", line 3, in <module>', b"    1 / 0", b"    ~~^~~"]
DIVISION = [HEAD, *FRAMES, b"ZeroDivisionError: division by zero"]
LINK = b"During handling of the above exception, another exception occurred:"
OTHER = [HEAD, b'  File "train.py", line 5, in <module>', b"KeyError: 'x'"]
SYNTAX = [b'  File "train.py", line 1', b"    def (:", b"        ^", b"SyntaxError: invalid syntax"]
FOLDED = b"(the same traceback as worker 0's; the log file has it)"


@pytest.fixture
def tracebacks() -> Tracebacks:
    return Tracebacks({0: "worker 0", 1: "worker 1", 2: "worker 2"})


def shown(tracebacks: Tracebacks, task: int, lines: list[bytes]) -> list[bytes]:
    """What is shown of a task that wrote these lines and ended."""
    return [*tracebacks.fold(task, lines), *tracebacks.rest(task)]


def chain(link: bytes = LINK) -> list[bytes]:
    return [*DIVISION, b"", link, b"", *OTHER]


class TestFold:
    @pytest.mark.parametrize("lines", [DIVISION, SYNTAX, [b"before", *DIVISION, b"after"]])
    def test_the_first_is_shown_and_the_others_are_named(self, tracebacks: Tracebacks, lines: list[bytes]) -> None:
        assert shown(tracebacks, 0, lines) == lines
        for task in (1, 2):
            rest = [line for line in lines if line in {b"before", b"after"}]
            assert sorted(shown(tracebacks, task, lines)) == sorted([*rest, FOLDED])

    def test_a_chain_is_named_once(self, tracebacks: Tracebacks) -> None:
        assert shown(tracebacks, 0, chain()) == chain()
        assert shown(tracebacks, 1, [*chain(), b"after"]) == [FOLDED, b"after"]

    def test_a_chain_that_ends_differently(self, tracebacks: Tracebacks) -> None:
        shown(tracebacks, 0, DIVISION)
        assert shown(tracebacks, 1, chain()) == [FOLDED, b"", LINK, b"", *OTHER]

    def test_what_only_looks_like_a_chain(self, tracebacks: Tracebacks) -> None:
        shown(tracebacks, 0, [*DIVISION, *OTHER])
        assert shown(tracebacks, 1, [*DIVISION, b"", *OTHER, b"", b"on"]) == [FOLDED, b"", FOLDED, b"", b"on"]

    def test_one_that_differs_is_shown(self, tracebacks: Tracebacks) -> None:
        assert shown(tracebacks, 0, DIVISION) == DIVISION
        assert shown(tracebacks, 1, OTHER) == OTHER

    def test_a_task_may_repeat_itself(self, tracebacks: Tracebacks) -> None:
        for _ in range(2):
            assert shown(tracebacks, 0, DIVISION) == DIVISION

    def test_tracebacks_written_at_the_same_time_do_not_mix(self, tracebacks: Tracebacks) -> None:
        lines = [line for pair in zip(DIVISION, SYNTAX, strict=False) for line in pair]
        tasks = [0, 1] * len(SYNTAX)
        out = [one for task, line in zip(tasks, lines, strict=True) for one in tracebacks.fold(task, [line])]
        out += tracebacks.fold(0, DIVISION[len(SYNTAX) :])
        assert out == [*SYNTAX, *DIVISION]

    def test_a_stack_dump_is_not_held(self, tracebacks: Tracebacks) -> None:
        dump = [b"Thread 0x00 (most recent call first):", b'  File "train.py", line 3 in wait']
        assert list(tracebacks.fold(0, dump)) == dump

    def test_an_endless_one_is_shown_as_it_comes(self, tracebacks: Tracebacks) -> None:
        lines = [HEAD, *[b"  " + b"x" * 1000] * 200]
        assert len(list(tracebacks.fold(0, lines))) > 100

    def test_what_is_remembered_is_limited(self, tracebacks: Tracebacks) -> None:
        for number in range(3000):
            shown(tracebacks, 0, [HEAD, b"  " + b"x" * 2000, b"Error: %d" % number])
        one = [HEAD, b"  " + b"y" * 2000, b"Error: last"]
        assert shown(tracebacks, 0, one) == shown(tracebacks, 1, one) == one


class TestRest:
    def test_a_traceback_cut_short_is_not_lost(self, tracebacks: Tracebacks) -> None:
        assert list(tracebacks.fold(0, DIVISION[:-1])) == []
        assert list(tracebacks.rest(0)) == DIVISION[:-1]
        assert list(tracebacks.rest(0)) == []


class TestConcern:
    @pytest.mark.parametrize("cut", range(len(HEAD) + 1))
    def test_however_a_head_is_cut(self, tracebacks: Tracebacks, cut: int) -> None:
        text = b"x\n" + HEAD + b"\n"
        before, after = text[: cut + 2], text[cut + 2 :]
        partial = before.rpartition(b"\n")[2]
        assert tracebacks.concern(0, b"", before) or tracebacks.concern(0, partial, after)

    def test_plain_lines_do_not(self, tracebacks: Tracebacks) -> None:
        assert not tracebacks.concern(0, b"step", b" 1\nstep 2\n")

    def test_all_that_follows_one_does(self, tracebacks: Tracebacks) -> None:
        list(tracebacks.fold(0, DIVISION[:2]))
        assert tracebacks.concern(0, b"", b"    1 / 0\n")
        assert not tracebacks.concern(1, b"", b"    1 / 0\n")
