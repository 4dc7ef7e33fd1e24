from __future__ import annotations

from itertools import product

import pytest

from launcher.reach import Dialled, Obstacle, failing, obstacles

DROPPED = "silently dropped, as a firewall does"
ANY = "let TCP through between them, on all ports or on a range that you name with --ports LOW-HIGH"


def dialled(*cuts: str, hosts: int = 2, state: str = "dropped", said: str = "", ports: int = 1) -> list[Dialled]:
    """All dial all; ``cuts`` say what fails, as ``1>2``, ``1>2:1`` for the second port alone."""
    failed = {(cut + ":").split(":")[0]: (cut + ":").split(":")[1] for cut in cuts}
    found = []
    for caller, callee, number in product(range(1, hosts + 1), range(1, hosts + 1), range(ports)):
        fails = failed.get(f"{caller}>{callee}")
        bad = fails is not None and fails in {"", str(number)}
        port = 20000 + 100 * callee + number
        found.append(Dialled(f"h{caller}", f"h{callee}", port, state if bad else "ok", said if bad else ""))
    return found


def reasons(*cuts: str, hosts: int = 2, state: str = "dropped", said: str = "", ports: int = 1) -> list[str]:
    return [one.reason for one in obstacles(dialled(*cuts, hosts=hosts, state=state, said=said, ports=ports), None)]


def test_all_is_well() -> None:
    assert obstacles(dialled(hosts=3), None) == []


@pytest.mark.parametrize(
    ("hosts", "cuts", "words"),
    [
        (2, ["1>2", "2>1"], ["h1 and h2 cannot reach each other"]),
        (2, ["2>1"], ["h2 cannot reach h1"]),
        (2, ["1>1"], ["h1 does not reach itself at that address"]),
        (3, ["1>3", "3>1"], ["h1 and h3 cannot reach each other"]),
        (3, ["1>3", "2>3", "3>1", "3>2"], ["h3 and all other hosts cannot reach each other"]),
        (3, ["1>3", "2>3"], ["no other host reaches h3"]),
        (3, ["1>3", "2>3", "3>3"], ["no host reaches h3, not even itself"]),
        (3, ["3>1", "3>2"], ["h3 reaches no other host"]),
        (3, ["1>2", "2>1", "1>3", "3>1", "2>3", "3>2"], ["none of the 3 hosts reaches another"]),
        (
            4,
            ["1>3", "3>1", "2>3", "3>2", "4>2"],
            ["h1 and h3 cannot reach each other", "h2 and h3 cannot reach each other", "h4 cannot reach h2"],
        ),
    ],
)
def test_who_and_whom(hosts: int, cuts: list[str], words: list[str]) -> None:
    assert reasons(*cuts, hosts=hosts) == [f"{one}: {DROPPED}" for one in words]


def test_more_sentences_say_no_more() -> None:
    # Two racks of six that do not reach each other.
    cuts = [
        f"{a}>{b}" for one, other in (((1, 7), (7, 13)), ((7, 13), (1, 7))) for a in range(*one) for b in range(*other)
    ]
    found = reasons(*cuts, hosts=12)
    assert len(found) == 9
    assert found[-1] == "and so for 28 other pairs of hosts"


def test_one_port_of_several() -> None:
    assert reasons("1>2:1", ports=2) == [f"h1 cannot reach h2: {DROPPED}, on port 20201 alone"]


def test_how_it_fails_is_told_apart() -> None:
    found = obstacles(
        [Dialled("h1", "h2", 1, "dropped"), Dialled("h2", "h1", 1, "unreachable", "No route to host")], None
    )
    assert [one.reason for one in found] == [
        f"h1 cannot reach h2: {DROPPED}",
        "h2 cannot reach h1: No route to host",
    ]


@pytest.mark.parametrize(
    ("state", "ports", "hint"),
    [
        ("dropped", None, ANY),
        ("dropped", (20000, 20100), "let TCP through between them, on ports 20000-20100"),
        ("refused", (20000, 20100), "let TCP through between them, on ports 20000-20100"),
        ("unreachable", None, "see to the route between them: subnets, a VPN, security groups"),
        ("stuck", None, "make the MTU of both ends fit the way between them (ip link), or let ICMP through"),
    ],
)
def test_what_to_do(state: str, ports: tuple[int, int] | None, hint: str) -> None:
    assert [one.hint for one in obstacles(dialled("1>2", state=state), ports)] == [hint]


def test_a_name_is_a_matter_of_whoever_does_not_know_it() -> None:
    found = obstacles(dialled("1>3", "2>3", "2>1", hosts=3, state="unknown", said="Name or service not known"), None)
    assert [one.reason for one in found] == [
        "h1 and h2 do not know the name h3: Name or service not known",
        "h2 does not know the name h1: Name or service not known",
    ]
    assert all(one.hint.startswith("give addresses that every host can dial") for one in found)


def test_whom_a_host_misses() -> None:
    assert failing(dialled("1>2:0", "1>2:1", "2>1", ports=2)) == {"h1": ["h2"], "h2": ["h1"]}


def test_an_obstacle_is_a_reason_and_a_hint() -> None:
    assert obstacles(dialled("2>1"), None) == [Obstacle(f"h2 cannot reach h1: {DROPPED}", ANY)]
