from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.agent.ports import Lease, lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def leased() -> Iterator[Callable[..., list[Lease]]]:
    """``lease``, with everything given back in the end."""
    with ExitStack() as stack:

        def take(count: int, ports: tuple[int, int] | None = None) -> list[Lease]:
            return [stack.enter_context(closing(one)) for one in lease(count, ports)]

        yield take


def worker_socket(port: int) -> socket.socket:
    """As TensorFlow's server makes it with TF_GRPC_REUSE_PORT=1."""
    server = socket.socket(socket.AF_INET6)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("::", port))
    server.listen()
    return server


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        return True


class TestAnyPort:
    def test_as_many_as_asked_for_each_another(self, leased: Callable[..., list[Lease]]) -> None:
        ports = [one.port for one in leased(20)]
        assert len(set(ports)) == 20
        assert all(1024 <= port <= 65535 for port in ports)

    def test_none(self) -> None:
        assert lease(0, None) == []

    def test_given_back_it_is_free(self) -> None:
        (one,) = lease(1, None)
        assert not is_free(one.port)
        one.close()
        assert is_free(one.port)


class TestRange:
    def test_the_first_that_are_free(self, leased: Callable[..., list[Lease]]) -> None:
        (held,) = leased(1)
        first, last = held.port, min(held.port + 50, 65535)
        more = [one.port for one in leased(2, (first, last))]
        assert first not in more
        assert more == sorted(more)
        assert all(first < port <= last for port in more)

    def test_a_port_that_somebody_else_listens_on_is_left_out(self, leased: Callable[..., list[Lease]]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with pytest.raises(OSError, match=f"0 of the 1 ports needed are free in {port}-{port}") as caught:
                leased(1, (port, port))
        assert caught.value.errno == errno.EADDRINUSE

    def test_too_few_are_none(self) -> None:
        (one,) = lease(1, None)
        one.close()
        with pytest.raises(OSError, match="1 of the 2 ports needed are free"):
            lease(2, (one.port, one.port))
        assert is_free(one.port)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may bind every port")
    def test_one_that_needs_a_privilege(self) -> None:
        with pytest.raises(PermissionError):
            lease(1, (1, 10))


class TestExclusive:
    def test_two_leases_never_share(self, leased: Callable[..., list[Lease]]) -> None:
        (first,) = leased(1)
        with pytest.raises(OSError, match="0 of the 1 ports"):
            leased(1, (first.port, first.port))

    def test_any_number_of_launchers_at_once(self, leased: Callable[..., list[Lease]]) -> None:
        code = (
            "import sys; from launcher.agent.ports import lease; sys.stdin.readline()\n"
            "held = lease(8, (int(sys.argv[1]), int(sys.argv[1]) + 300))\n"
            "print(*(one.port for one in held), flush=True); sys.stdin.readline()"
        )
        start = min(leased(1)[0].port, 65000)
        with ExitStack() as stack:
            agents = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", code, str(start)],
                        cwd=ROOT,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        bufsize=1,
                    )
                )
                for _ in range(3)
            ]
            for agent in agents:
                assert agent.stdin is not None
                agent.stdin.write("go\n")
            ports = [
                int(port) for agent in agents if agent.stdout is not None for port in agent.stdout.readline().split()
            ]
            for agent in agents:
                assert agent.stdin is not None
                agent.stdin.write("end\n")
        assert len(set(ports)) == len(ports) == 24

    @pytest.mark.parametrize("reuse_address", [False, True])
    @pytest.mark.parametrize(
        ("family", "address"),
        [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::")],
    )
    def test_ordinary_binds_are_refused(
        self, leased: Callable[..., list[Lease]], family: socket.AddressFamily, address: str, reuse_address: bool
    ) -> None:
        (one,) = leased(1)
        with socket.socket(family) as intruder:
            intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
            with pytest.raises(OSError) as caught:
                intruder.bind((address, one.port))
        assert caught.value.errno == errno.EADDRINUSE


class TestWorker:
    def test_it_joins_and_gets_every_connection(self, leased: Callable[..., list[Lease]]) -> None:
        (one,) = leased(1)
        with worker_socket(one.port) as server:
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", one.port), timeout=10):
                    server.settimeout(10)
                    server.accept()[0].close()

    def test_its_port_outlives_the_worker(self, leased: Callable[..., list[Lease]]) -> None:
        (one,) = leased(1)
        worker_socket(one.port).close()
        assert not is_free(one.port)
        worker_socket(one.port).close()

    def test_the_worker_keeps_the_port_when_the_lease_ends_first(self) -> None:
        (one,) = lease(1, None)
        with worker_socket(one.port):
            one.close()
            assert not is_free(one.port)


class TestPortServer:
    # In a process of its own: the agent lets site look for packages, and portpicker reads the environment.
    CODE = "from launcher.agent.ports import lease; held = lease(1, None); print(held[0].port); held[0].close()"

    def lease_there(self, address: str) -> int:
        environment = {**os.environ, "PORTSERVER_ADDRESS": address}
        python = [sys.executable, "-c", self.CODE]
        done = subprocess.run(python, cwd=ROOT, env=environment, check=True, capture_output=True)
        return int(done.stdout)

    def test_it_picks(self, tmp_path: Path) -> None:
        pytest.importorskip("portpicker")
        (one,) = lease(1, None)
        one.close()
        asked: list[bytes] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(1024))
                connection.sendall(b"%d\n" % one.port)

        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "ports"))
            server.listen()
            server.settimeout(30)
            thread = threading.Thread(target=serve)
            thread.start()
            assert self.lease_there(str(tmp_path / "ports")) == one.port
            thread.join()
        assert asked[0].strip().isdigit()

    def test_without_one_that_answers_any_port_does(self, tmp_path: Path) -> None:
        assert self.lease_there(str(tmp_path / "absent")) > 0
