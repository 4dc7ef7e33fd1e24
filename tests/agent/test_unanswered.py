from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from launcher.agent import unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def test_the_table_of_a_network_is_read_once_for_all_who_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def entries(pid: int, name: str) -> Iterator[tuple[str, str]]:
        read.append(name)
        yield from (("10.77.0.3:1", link) for link in unanswered._sockets(pid))

    monkeypatch.setattr(unanswered, "_entries", entries)
    monkeypatch.setattr(unanswered, "_tables", {})
    with socket.socket():
        for _ in range(3):
            assert unanswered.unanswered(os.getpid()) == ["10.77.0.3:1"]
    assert read == ["tcp", "tcp6"]


def test_a_process_without_sockets_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "_entries", lambda *_: pytest.fail("looked up"))
    with subprocess.Popen(["sleep", "600"]) as alone:
        try:
            assert unanswered.unanswered(alone.pid) == []
        finally:
            alone.kill()
