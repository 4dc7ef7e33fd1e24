"""The working tree on hosts that do not share it, and results that come back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.conftest import Field

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
import os, socket, sys, time
import helper
print("in", os.getcwd(), helper.WORD, sorted(name for name in os.listdir(".") if name[0] not in "._"), flush=True)
if os.environ["TFLAUNCH_TASK"] == "worker:0":
    os.makedirs("out/deep", exist_ok=True)
    with open("out/deep/result", "w") as file:
        file.write(socket.gethostname())
"""


@pytest.fixture
def folder(hosts: Field) -> Path:
    """A program of two files, in a repository of its own."""
    folder = hosts.tflaunch.cwd
    hosts.tflaunch.script(PROGRAM, "train.py")
    hosts.tflaunch.script('WORD = "first"\n', "helper.py")
    (folder / ".gitignore").write_text("out\nruns\n__pycache__\ncluster.json\nnotes\n")
    (folder / "notes").write_text("nobody's business")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "runs/latest/events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


SETTINGS: dict[str, Any] = {"script": "train.py", "sync": True, "fetch": ["out"], "cwd": None}


def cluster(hosts: Field, **settings: Any) -> str:
    return hosts.cluster(**{**SETTINGS, **settings})


def test_only_what_changed_is_sent_and_results_come_back(hosts: Field, folder: Path) -> None:
    ended = hosts.tflaunch("run", cluster(hosts))
    assert ended.status == 0, ended.err
    places = [
        match[1] for line in ended.lines if (match := re.search(r"in (\S+) first \['helper.py', 'train.py'\]", line))
    ]
    assert [place.startswith(str(host.home)) for place, host in zip(sorted(places), hosts.bed.hosts, strict=True)] == [
        True
    ] * 2
    assert (folder / "out/deep/result").read_text() == "h1"
    assert "1 file fetched from 10.77.0.1" in ended.err
    assert "3 files (0.0 MB) of" in ended.err
    kept = json.loads((folder / "runs/latest/run.json").read_text())["tree"]
    assert kept["files"] == 3
    assert kept["dirty"]
    assert sorted(map(len, (one["numbers"] for one in events(folder, "TreeLacks")))) == [3, 3]

    again = hosts.tflaunch("run", cluster(hosts))
    assert again.status == 0
    assert [one["numbers"] for one in events(folder, "TreeLacks")] == [[], []]

    (folder / "helper.py").write_text('WORD = "second"\n')
    changed = hosts.tflaunch("run", cluster(hosts))
    assert sum("second" in line for line in changed.lines) == 2
    assert [len(one["numbers"]) for one in events(folder, "TreeLacks")] == [1, 1]


def test_a_tree_larger_than_what_is_held_in_memory(hosts: Field, folder: Path) -> None:
    content = os.urandom(12 << 20)
    (folder / "big").write_bytes(content)
    ended = hosts.tflaunch("run", cluster(hosts, script=None, fetch=None), "--", "sha256sum", "big")
    assert ended.status == 0, ended.err
    digest = hashlib.sha256(content).hexdigest()
    assert sorted(ended.lines) == [f"worker {number} | {digest}  big" for number in (0, 1)]


def test_an_interrupted_run_brings_back_what_there_is(hosts: Field, folder: Path) -> None:
    with (folder / "train.py").open("a") as file:
        file.write("print('written', flush=True)\ntime.sleep(600)\n")
    run = hosts.tflaunch.start("run", cluster(hosts))
    run.until("written", times=2)
    run.send(signal.SIGINT)
    status, err = run.end()
    assert status == 130
    assert "1 file fetched" in err
    assert (folder / "out/deep/result").read_text() == "h1"


def test_without_sync_the_folder_has_to_be_there(hosts: Field, folder: Path) -> None:
    ended = hosts.tflaunch("run", cluster(hosts, sync=False))
    assert ended.status == 69
    assert f"10.77.0.1, 10.77.0.2: no such folder: {folder}" in ended.err
    assert 'copy it to the hosts with "sync"' in ended.err


def test_a_host_without_room(hosts: Field, folder: Path) -> None:
    host = hosts.bed.hosts[1]
    code = host.home / ".cache/tflaunch/code"
    code.mkdir(parents=True)
    host.run("true")
    (folder / "big").write_bytes(bytes(3_000_000))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "code", str(code)], check=True)
    try:
        # The mount is to be seen on the host, which has mounts of its own.
        host.crash()
        host.start()
        ended = hosts.tflaunch("run", cluster(hosts))
    finally:
        host.crash()
        subprocess.run(["umount", str(code)], check=True)
        host.start()
    assert ended.status == 69
    assert "10.77.0.2: cannot keep the program's files: " in ended.err
    assert "No space left on device" in ended.err


def test_files_that_never_come_back(hosts: Field, folder: Path) -> None:
    (folder / "out").write_text("a file where a folder has to be")
    ended = hosts.tflaunch("run", cluster(hosts))
    assert ended.status == 69
    assert "all tasks are done, but what was to be fetched is not here: cannot write" in ended.err
