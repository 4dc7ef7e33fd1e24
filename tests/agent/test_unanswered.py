from __future__ import annotations

import os
import socket
import sys

import pytest

from launcher.agent import unanswered


@pytest.mark.skipif(sys.byteorder != "little", reason="as a machine of this kind shows them")
@pytest.mark.parametrize(
    ("column", "place"),
    [
        ("03004D0A:4E21", "10.77.0.3:20001"),
        ("0000000000000000FFFF000003004D0A:4E21", "10.77.0.3:20001"),
        ("B80D0120000000000000000001000000:4E21", "[2001:db8::1]:20001"),
    ],
)
def test_a_place_is_written_as_people_do(column: str, place: str) -> None:
    assert unanswered._place(column) == place


def test_where_peers_answer_there_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"acknowledged, though nobody reads it")
        assert unanswered.unanswered(os.getpid()) == []


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert unanswered.unanswered(1 << 22) == []
