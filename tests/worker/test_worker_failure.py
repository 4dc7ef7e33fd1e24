from __future__ import annotations

import pytest

from worker import failure

# Messages as TensorFlow 2.21 worded them in a cluster of three, shortened.
ABORTED = "Graph execution error:\n\nDetected at node CollectiveReduceV2 ...\nCollective ops is aborted by: "
SHAPES = ABORTED + "Shape mismatch in the collective instance 201. Op at device ... expected shape [3]"
UNHEALTHY = ABORTED + "The following tasks are unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:1"


GRAPH = (
    "Graph execution error:\n\nDetected at node CollectiveReduceV2 defined at (most recent call last):\n"
    '  File "/home/me/train.py", line 19, in train\n\n  File "/home/me/train.py", line 16, in step\n\n'
    "Collective ops is aborted by: Deadline Exceeded\n\nRPC: /tensorflow.CoordinationService/Heartbeat\n"
    "\t [[{{node CollectiveReduceV2}}]] [Op:__inference_step_27]"
)


@pytest.mark.parametrize(
    ("message", "essence"),
    [
        (GRAPH, "Collective ops is aborted by: Deadline Exceeded\nRPC: /tensorflow.CoordinationService/Heartbeat"),
        ("Graph execution error:\n\nDetected at node x", "Graph execution error:\n\nDetected at node x"),
        ("  indented\n\nas it is", "  indented\n\nas it is"),
    ],
)
def test_of_a_graphs_failure_what_went_wrong_is_kept(message: str, essence: str) -> None:
    assert failure.essence(message) == essence


@pytest.mark.parametrize(
    ("type_name", "message", "victim"),
    [
        ("UnavailableError", ABORTED + "recvmsg:Connection reset by peer", True),
        ("UnavailableError", ABORTED + "Socket closed", True),
        ("UnavailableError", UNHEALTHY, True),
        ("AbortedError", "", True),
        ("CancelledError", "", True),
        ("DeadlineExceededError", "Collective has timed out during execution.", True),
        ("InternalError", ABORTED + "Socket closed", True),
        ("InternalError", "failed to connect to all addresses; last error: UNKNOWN", True),
        ("InternalError", "CUDA error: an illegal memory access was encountered", False),
        ("FailedPreconditionError", "Coordination service has stopped. ReportTaskError() failed.", True),
        ("FailedPreconditionError", "Barrier failed because: a task is gone", True),
        ("FailedPreconditionError", "Could not find variable dense/kernel", False),
        ("InvalidArgumentError", SHAPES, False),
        ("ResourceExhaustedError", "OOM when allocating tensor", False),
        ("ConnectionResetError", "[Errno 104] Connection reset by peer", True),
        ("ConnectionRefusedError", "[Errno 111] Connection refused", False),
        ("ConnectionError", "no route to the data server", False),
        ("ValueError", "Socket closed", False),
        ("KeyboardInterrupt", "", False),
    ],
)
def test_is_victim(type_name: str, message: str, victim: bool) -> None:
    assert failure.is_victim(type_name, message) is victim
