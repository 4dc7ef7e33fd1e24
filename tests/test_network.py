from __future__ import annotations

import pytest

from launcher.network import cut, tasks_at
from launcher.placement import Task
from launcher.verdict import Ending

# As TensorFlow 2.21 words them, with worker 1 and worker 2 unable to talk; shortened.
FROM_2 = (
    "Collective ops is aborted by: failed to connect to all addresses; last error: UNKNOWN: ipv4:10.77.0.2:52323: "
    "tcp handshaker shutdown\nAdditional GRPC error information from remote target /job:worker/replica:0/task:1 while "
    "calling /tensorflow.WorkerService/RecvBuf:\n:UNKNOWN:Error received from peer"
)
FROM_0 = (
    f"Collective ops is aborted by: {FROM_2}\nThe error could be from a previous operation.\nAdditional GRPC error "
    "information from remote target /job:worker/replica:0/task:2 while calling /tensorflow.WorkerService/RecvBuf:\n"
)
REFUSED = (
    "Collective ops is aborted by: Failed to send RPC to coordination service.\nAdditional GRPC error information from "
    "remote target /job:worker/replica:0/task:0 while calling /tensorflow.CoordinationService/Heartbeat:\n failed to "
    "connect to all addresses; last error: UNKNOWN: ipv4:10.77.0.1:45419: Failed to connect to remote host: "
    "Connection refused"
)
# As worker 1 words it, and worker 0 whom it answers, when three of ten packets between them get lost.
LATE = (
    "Collective ops is aborted by: Deadline Exceeded\n\nRPC: /tensorflow.CoordinationService/Heartbeat\nThe error could"
)
LATE_TO_0 = (
    f"Collective ops is aborted by: {LATE} be from a previous operation.\nAdditional GRPC error information from remote "
    "target /job:worker/replica:0/task:1 while calling /tensorflow.WorkerService/RecvBuf:\n"
)
UNHEALTHY = (
    "Collective ops is aborted by: Error reported from /job:worker/task:2: The following tasks are unhealthy (stopped "
    "sending heartbeats):\n/job:worker/replica:0/task:2"
)
ONE_AND_TWO = "worker 1 on h1 and worker 2 on h2 could not reach each other"
BETWEEN = "look at the network between h1 and h2: a firewall, a route, a cable"


def endings(*told: str | tuple[int, ...], hosts: str = "012") -> list[Ending]:
    """Three workers, with what each said, or what it sent in vain."""
    tasks = [Task(number, "worker", number, f"h{host}") for number, host in enumerate(hosts)]
    return [
        Ending(task, error={"message": one}) if isinstance(one, str) else Ending(task, unanswered=one)
        for task, one in zip(tasks, told, strict=False)
    ]


@pytest.mark.parametrize("told", [("", (2,), ""), ("", "", (1,)), ("", (2,), (1,)), ("", "", FROM_2), (FROM_0, "", "")])
def test_either_end_tells_of_a_pair(told: tuple[str | tuple[int, ...], ...]) -> None:
    assert cut(endings(*told)) == (ONE_AND_TWO, f"{BETWEEN}; no other line between tasks failed")


def test_what_all_said_when_a_line_was_cut_comes_to_one_pair() -> None:
    found = cut(endings(FROM_0, REFUSED, FROM_2))
    assert found is not None
    assert found.reason == ONE_AND_TWO


@pytest.mark.parametrize("told", [("", LATE, ""), (LATE_TO_0, LATE, ""), (LATE_TO_0, "", LATE_TO_0)])
def test_heartbeats_that_come_too_late(told: tuple[str, ...]) -> None:
    found = cut(endings(*told))
    assert found is not None
    assert found.reason == "worker 0 on h0 and worker 1 on h1 could not reach each other"
    assert cut(endings(*told, hosts="000")) is None


def test_who_has_lost_several_is_where_to_look() -> None:
    assert cut(endings((2,), "", (1,))) == (
        f"worker 0 on h0 and worker 2 on h2 could not reach each other; {ONE_AND_TWO}",
        "look at the network of h2",
    )


def test_of_one_host_the_name_says_nothing() -> None:
    found = cut(endings("", (0,), hosts="00"))
    assert found == ("worker 0 and worker 1 could not reach each other", "look at the network of h0")


@pytest.mark.parametrize("message", ["", REFUSED, UNHEALTHY, "Socket closed", "Deadline Exceeded"])
def test_what_a_task_that_is_gone_or_stopped_leaves_behind_is_no_evidence(message: str) -> None:
    assert cut(endings(message, message, message)) is None


def test_a_place_is_a_task_where_that_is_certain() -> None:
    known = {"10.0.0.1:20000": 0, "10.0.0.2:20000": 1, "10.0.0.2:20001": 2, "[fd00::1]:20000": 3}
    assert list(tasks_at(["10.0.0.2:20001"], known)) == [2]
    assert list(tasks_at(["10.0.0.1:51234", "[fd00::1]:51234"], known)) == [0, 3]
    assert list(tasks_at(["10.0.0.2:51234", "10.0.0.9:20000"], known)) == []
