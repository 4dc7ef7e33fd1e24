"""Port leases, and networks of their own, among many clusters on one machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess

import pytest

from tests.acceptance.conftest import PATIENCE, Command

HOLD = "import os, sys\nprint(os.environ['TF_CONFIG'], flush=True)\nopen('held', 'r')"


def test_fifty_clusters_at_once_never_collide(tflaunch: Command) -> None:
    # None ends before all have their ports: opening a fifo for reading waits for the one that opens it for writing.
    subprocess.run(["mkfifo", str(tflaunch.cwd / "held")], check=True)
    script = tflaunch.script(HOLD)
    clusters = [tflaunch.start("run", "-n", "2", script) for _ in range(50)]
    lines = [line for cluster in clusters for line in (cluster.until(r"\| {"), cluster.until(r"\| {"))]
    # Open to the end: one of them may have printed its line, and not come to open it yet.
    with (tflaunch.cwd / "held").open("w"):
        assert [cluster.end()[0] for cluster in clusters] == [0] * 50
    configs = [json.loads(line.partition(" | ")[2]) for line in lines]
    addresses = [config["cluster"]["worker"][config["task"]["index"]] for config in configs]
    assert len(set(addresses)) == len(addresses) == 100


def test_a_worker_can_bind_its_port_and_nobody_else(tflaunch: Command) -> None:
    text = """
import json, os, socket
config = json.loads(os.environ["TF_CONFIG"])
mine, peers = ([int(config["cluster"]["worker"][i].rpartition(":")[2]) for i in (0, 1)])
def bind(option):
    with socket.socket(socket.AF_INET6) as server:
        server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind(("::", mine))
        server.listen()
bind(socket.SO_REUSEPORT)
try:
    bind(socket.SO_REUSEADDR)
except OSError as error:
    print(error.strerror)
"""
    assert "worker 0 | Address already in use" in tflaunch("run", "-n", "2", tflaunch.script(text)).lines


def test_a_range_that_is_busy(tflaunch: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        ended = tflaunch("run", "--ports", f"{port}-{port}", "--", "true")
    assert ended.status == 69
    assert f"cannot lease ports: 0 of the 1 ports needed are free in {port}-{port}" in ended.err
    assert ended.outcome["status"] == "not started"


def test_a_range_is_kept_to(tflaunch: Command) -> None:
    # Below what the kernel gives to others: nobody but a second run of this test looks for ports here.
    ended = tflaunch("run", "--ports", "21000-21099", "--", "sh", "-c", "echo $TF_CONFIG")
    config = json.loads(ended.lines[0].partition(" | ")[2])
    assert 21000 <= int(config["cluster"]["worker"][0].rpartition(":")[2]) <= 21099


def test_a_port_server_is_honoured(tflaunch: Command) -> None:
    pytest.importorskip("portpicker")
    offered = 22_000 + os.getpid() % 10_000
    # The protocol of portpicker's server: it is sent a process id, and answers with a port.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + str(tflaunch.cwd))
        server.listen()
        server.settimeout(PATIENCE)
        started = tflaunch.start(
            "run", "--", "sh", "-c", "echo $TF_CONFIG", env={"PORTSERVER_ADDRESS": "@" + str(tflaunch.cwd)}
        )
        client, _ = server.accept()
        with client:
            client.recv(1024)
            client.sendall(f"{offered}\n".encode())
        assert f'"127.0.0.1:{offered}"' in started.until("TF_CONFIG|cluster")
        assert started.end()[0] == 0


def test_private_has_a_loopback_of_its_own_and_nothing_else(tflaunch: Command) -> None:
    if subprocess.run(["unshare", "--net", "--map-root-user", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel does not let us make network namespaces")
    with socket.socket() as outside:
        outside.bind(("127.0.0.1", 0))
        outside.listen()
        text = f"""
import os, socket
print(sorted(name for _, name in socket.if_nameindex()))
inner = socket.create_server(("127.0.0.1", 0))
socket.create_connection(inner.getsockname()).close()
try:
    socket.create_connection(("127.0.0.1", {outside.getsockname()[1]}))
except ConnectionRefusedError:
    print("outside is out of reach")
"""
        ended = tflaunch("run", "--private", tflaunch.script(text))
    assert ended.status == 0, ended.err
    assert "'lo'" in ended.lines[0]
    assert "'eth" not in ended.lines[0]
    assert ended.lines[1] == "worker 0 | outside is out of reach"
    assert "--private" not in ended.err
