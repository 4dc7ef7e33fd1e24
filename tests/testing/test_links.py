"""Lines that are cut for real: tasks in network namespaces of their own, between which packets are lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launcher.errors import RequestError
from tests.acceptance.conftest import gone, living
from worker import report

if TYPE_CHECKING:
    import psutil

    from launcher.testing import Cluster, Clusters

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a Linux feature"),
]
WITH_TENSORFLOW = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(clusters: Clusters) -> Cluster:
    return clusters(3, links=True)


def talk(folder: Path) -> dict[str, list[str]]:
    """Say something to each peer whenever the test says so; returns what came of it, by what the test called it."""
    config = json.loads(os.environ["TF_CONFIG"])
    me = config["task"]["index"]
    places = [(host, int(port)) for host, port in (one.split(":") for one in config["cluster"]["worker"])]
    with socket.create_server(("", places[me][1]), reuse_port=True) as server:
        server.settimeout(0.5)
        said: dict[str, list[str]] = {}
        report("progress", step=0)
        for number, round_ in enumerate(("before", "cut", "mended", "end"), 1):
            while not (folder / round_).exists():
                time.sleep(0.01)
            if round_ != "end":
                said[round_] = [reached(place) for place in places]
            report("progress", step=number)
        return said


def reached(place: tuple[str, int]) -> str:
    try:
        socket.create_connection(place, timeout=0.5).close()
    except OSError as error:
        return type(error).__name__
    return "yes"


def rounds(cluster: Cluster, folder: Path, name: str, number: int) -> None:
    (folder / name).touch()
    for task in range(3):
        cluster.until_step(number, task)


@pytest.mark.parametrize("warm", [False, pytest.param(True, marks=WITH_TENSORFLOW)])
def test_a_line_is_cut_silently_and_mended(clusters: Clusters, tmp_path: Path, warm: bool) -> None:
    cluster = clusters(3, links=True, warm=warm)
    run = cluster.start(talk, tmp_path)
    for task in range(3):
        cluster.until_step(0, task)
    rounds(cluster, tmp_path, "before", 1)
    cluster.drop_link(0, "worker 2")
    rounds(cluster, tmp_path, "cut", 2)
    cluster.restore_link(2, 0)
    rounds(cluster, tmp_path, "mended", 3)
    (tmp_path / "end").touch()
    zero, one, two = run.result()
    everybody = ["yes", "yes", "yes"]
    assert zero == {"before": everybody, "cut": ["yes", "yes", "TimeoutError"], "mended": everybody}
    assert one == {"before": everybody, "cut": everybody, "mended": everybody}
    assert two == {"before": everybody, "cut": ["TimeoutError", "yes", "yes"], "mended": everybody}


def network() -> str:
    return str(Path("/proc/self/ns/net").readlink())


def test_each_has_a_network_of_its_own_from_run_to_run(cluster: Cluster) -> None:
    networks = [cluster.run(network) for _ in range(3)]
    assert [len({*run, network()}) for run in networks] == [4, 4, 4]


def reach_worker_2() -> str:
    host, _, port = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][2].partition(":")
    return reached((host, int(port)))


def test_a_run_may_begin_with_a_line_cut_and_the_next_does_not(cluster: Cluster) -> None:
    cluster.drop_link(0, 2)
    # Nobody listens: who reaches worker 2 is told so.
    assert cluster.run(reach_worker_2) == ["TimeoutError", "ConnectionRefusedError", "ConnectionRefusedError"]
    assert cluster.run(reach_worker_2) == ["ConnectionRefusedError"] * 3


def test_lines_are_there_for_clusters_that_ask_for_them(clusters: Clusters) -> None:
    with pytest.raises(RequestError, match=r"share one address.*\n.*links=True"):
        clusters(3).drop_link(0, 2)


def test_a_line_has_two_ends(cluster: Cluster) -> None:
    with pytest.raises(RequestError, match="from worker 1 to itself"):
        cluster.drop_link(1, 1)


def networks_in_use() -> set[str]:
    """Every network namespace that a process is in, or has a descriptor of."""
    found = set()
    for place in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/proc").glob("[0-9]*/fd/*")):
        try:
            found.add(str(place.readlink()))
        except OSError:
            continue
    return {one for one in found if one.startswith("net:")}


def stay(folder: Path) -> None:
    (folder / os.environ["TFLAUNCH_TASK"]).write_text(network())
    report("progress", step=0)
    time.sleep(600)


@pytest.mark.parametrize("victim", ["agent", "pytest"])
def test_nothing_is_left_however_it_ends(tmp_path: Path, victim: str) -> None:
    # A namespace that nobody is in, or holds, is gone, and its devices with it.
    program = (
        "import os, pathlib, sys, time\n"
        "from launcher.testing import Clusters\n"
        "from tests.testing.test_links import stay\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with Clusters(folder) as clusters:\n"
        "    run = clusters(3, links=True).start(stay, folder)\n"
        "    run.wait()\n"
    )
    test = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL)

    def left() -> list[psutil.Process]:
        return living(lambda process: str(tmp_path) in " ".join(process.cmdline()) and process.pid != test.pid)

    names = [tmp_path / f"worker:{index}" for index in range(3)]
    while test.poll() is None and not all(name.exists() and name.read_text() for name in names):
        time.sleep(0.02)
    if test.poll() is not None:
        pytest.skip("no network namespaces here")
    networks = {name.read_text() for name in names}
    assert len(networks) == 3
    assert networks <= networks_in_use()
    os.kill(left()[0].ppid() if victim == "agent" else test.pid, signal.SIGKILL)
    test.wait(20)
    gone(left)
    deadline = time.monotonic() + 10
    while networks & networks_in_use() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not networks & networks_in_use()


def test_it_takes_no_root_where_users_may_make_namespaces(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from launcher.testing import Clusters\n"
        "from tests.testing.test_links import reach_worker_2\n"
        "with Clusters(pathlib.Path(sys.argv[1])) as clusters:\n"
        "    cluster = clusters(3, links=True)\n"
        "    cluster.drop_link(1, 2)\n"
        "    print(os.geteuid(), *cluster.run(reach_worker_2), *cluster.run(os.geteuid))\n"
    )
    as_user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_user, sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "Unprivileged" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    uid = done.stdout.split()[0]
    assert uid != "0"
    expected = [uid, "ConnectionRefusedError", "TimeoutError", "ConnectionRefusedError", uid, uid, uid]
    assert done.stdout.split() == expected, done.stderr


def train(steps: int) -> float:
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def step() -> Any:
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)

    total = 0.0
    for number in range(steps):
        total += float(step())
        report("progress", step=number)
        time.sleep(0.02)
    return total


def say_something(folder: Path) -> None:
    """Worker 0 writes to its peers in turn; nobody reads, but live hosts acknowledge."""
    places = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
    me = os.environ["TFLAUNCH_TASK"].rpartition(":")[2]
    with socket.create_server(("", int(places[int(me)].partition(":")[2])), reuse_port=True):
        report("progress", step=0)
        while not (folder / "go").exists():
            time.sleep(0.01)
        lines = [socket.create_connection(place.split(":")) for place in places]
        report("progress", step=1)
        while True:
            for line in lines if me == "0" else ():
                line.sendall(b"x")
            time.sleep(0.1)


def test_a_deadline_tells_who_could_not_reach_whom(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters(3, links=True, warm=False, timeout=5, grace=0.1)
    run = cluster.start(say_something, tmp_path)
    for task in range(3):
        cluster.until_step(0, task)
    (tmp_path / "go").touch()
    for task in range(3):
        cluster.until_step(1, task)
    cluster.drop_link(0, 2)
    reason = "the run's deadline of 5 s passed: worker 0 and worker 2 could not reach each other"
    assert run.wait().outcome.verdict.reason == reason


@WITH_TENSORFLOW
def test_a_training_fails_and_the_verdict_names_the_pair(cluster: Cluster) -> None:
    run = cluster.start(train, 100_000)
    cluster.until_step(5)
    cluster.drop_link(0, 2)
    ended = run.wait()
    assert ended.fates == ("victim", "victim", "victim")
    assert {type(error).__name__ for error in ended.errors()} <= {"UnavailableError", "DeadlineExceededError"}
    verdict = ended.outcome.verdict
    assert (verdict.status, verdict.exit_status) == ("unavailable", 69)
    assert verdict.reason == "worker 0 and worker 2 could not reach each other"
    assert verdict.hint == "look at the network of 127.0.0.1; no other line between tasks failed"


@WITH_TENSORFLOW
def test_a_training_goes_on_when_the_line_comes_back(cluster: Cluster) -> None:
    run = cluster.start(train, 150)
    cluster.until_step(5)
    cluster.drop_link(0, 2)
    time.sleep(3)
    cluster.restore_link(0, 2)
    assert run.result() == [450.0] * 3
