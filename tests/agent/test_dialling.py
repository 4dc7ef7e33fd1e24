from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from launcher.agent import dialling
from launcher.agent.dialling import dial
from launcher.agent.ports import lease
from tests.agent.test_ports import is_free, worker_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.agent.ports import Lease

pytestmark = pytest.mark.timeout(60)

PATIENCE = 20.0


@pytest.fixture
def held() -> Iterator[Lease]:
    (one,) = lease(1, None)
    with closing(one):
        yield one


def state(*place: tuple[str, int], seconds: float = PATIENCE) -> list[object]:
    return [told["state"] for told in dial(place, seconds)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_lease_that_listens_is_reached(held: Lease, host: str) -> None:
    held.listen()
    (told,) = dial([(host, held.port)], PATIENCE)
    assert told["state"] == "ok"
    assert told["said"] == ""
    assert isinstance(told["trip"], float)
    assert told["mtu"] in {65535, 65536}  # the loopback's, as its owner has set it


def test_one_that_does_not_refuses(held: Lease) -> None:
    held.listen()
    held.deafen()
    assert state(("127.0.0.1", held.port)) == ["refused"]


def test_the_answers_are_in_order(held: Lease) -> None:
    (other,) = lease(1, None)
    with closing(other):
        held.listen()
        places = [("127.0.0.1", other.port), ("127.0.0.1", held.port), ("no.such.name.invalid", 1)]
        assert state(*places) == ["refused", "ok", "unknown"]


def test_who_never_answers_is_given_up() -> None:
    # A queue that is full drops what comes, as a firewall does.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        place = deaf.getsockname()
        with socket.create_connection(place):
            assert state(place, seconds=0.05) == ["dropped"]


def test_who_takes_no_data_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # More than the other side's kernel has room for stands for what a way with a smaller MTU swallows.
    monkeypatch.setattr(dialling, "_LOAD", bytes(1 << 20))
    with socket.socket() as full:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        full.bind(("127.0.0.1", 0))
        full.listen()
        assert state(full.getsockname(), seconds=0.1) == ["stuck"]


def test_no_trace_is_left_for_the_worker(held: Lease) -> None:
    held.listen()
    assert state(*[("127.0.0.1", held.port)] * 20) == ["ok"] * 20
    held.deafen()
    with worker_socket(held.port):
        assert not is_free(held.port)
    port = held.port
    held.close()
    # No TIME_WAIT, which would keep an ordinary bind away.
    assert is_free(port)
