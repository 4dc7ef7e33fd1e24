from __future__ import annotations

from typing import Any

import pytest

from launcher.checkup import Finding, Seen, differences, findings
from launcher.config import Command, Module, Program, Script, Trainer
from launcher.reach import Dialled

THERE: dict[str, Any] = {"missing": None, "runs": True, "origin": "/x/__init__.py"}
ABSENT: dict[str, Any] = {"missing": "absent", "runs": False, "origin": None, "version": None}


def interpreter(python: str = "3.11.7", tensorflow: str | None = "2.21.0", keras: str = "3.12.0") -> dict[str, Any]:
    found = ABSENT if tensorflow is None else {**THERE, "version": tensorflow}
    modules = {"tensorflow": found, "keras": {**THERE, "version": keras}}
    return {"version": [int(part) for part in python.split(".")], "modules": modules}


def premises(**found: Any) -> dict[str, Any]:
    return {
        "python": interpreter(),
        "lacks": {},
        "disks": [{"path": "~", "free": 5 << 30}, {"path": "/data", "free": 3 << 30}],
        "memory": 8_000_000_000,
        "driver": "",
        **found,
    }


def seen(host: str = "h1", *, found: dict[str, Any] | None = None, **known: Any) -> Seen:
    told: dict[str, Any] = {
        "took": 0.25,
        "facts": {"cores": [0, 1], "gpus": []},
        "premises": premises(**(found or {})),
        "dialled": [Dialled(host, host, 1, "ok", trip=0.1), Dialled(host, "h9", 1, "ok", trip=0.0004, mtu=1450)],
        "left": {"runs": [], "folders": []},
    }
    return Seen(host, **{**told, **known})


def one(check: str, *hosts: Seen, command: Command | None = None, host: str = "h1") -> Finding:
    """The finding of this check; there is no other like it."""
    (found,) = [each for each in findings(command, hosts or (seen(),)) if each.check == check and each.host == host]
    return found


def test_a_host_where_all_is_well() -> None:
    found = findings(Script("train.py"), [seen()])
    assert {each.state for each in found} == {"ok"}
    assert {each.check: each.said for each in found} == {
        "agent": "0.25 s",
        "python": "3.11.7",
        "tensorflow": "2.21.0",
        "keras": "3.12.0, repaired",
        "program": "there",
        "gpus": "none",
        "cores": "2",
        "memory": "8 GB",
        "disk": "3.22 GB",
        "clock": "right",
        "peers": "2 of 2, 0.4 ms, MTU 1450",
        "left": "none",
    }


def test_one_that_cannot_be_reached_is_told_of_once() -> None:
    assert findings(None, [Seen("h1", "Connection refused", "is sshd running?")]) == [
        Finding("h1", "agent", "bad", "no", "Connection refused", "is sshd running?")
    ]


class TestInterpreter:
    def test_one_that_does_not_work(self) -> None:
        found = one("python", seen(found={"python": {"error": "Permission denied"}}))
        assert (found.state, found.why) == ("bad", "the workers' interpreter: Permission denied")

    @pytest.mark.parametrize("command", [None, Script("train.py"), Module("train"), Trainer("digits")])
    def test_without_tensorflow(self, command: Command | None) -> None:
        assert one("tensorflow", seen(found={"python": interpreter(tensorflow=None)}), command=command).state == "bad"

    def test_a_program_may_do_without(self) -> None:
        found = one("tensorflow", seen(found={"python": interpreter(tensorflow=None)}), command=Program(("x",)))
        assert (found.state, found.said) == ("ok", "no")

    def test_keras_2_needs_no_repair(self) -> None:
        assert one("keras", seen(found={"python": interpreter(keras="2.15.0")})).said == "2.15.0"


class TestDifferences:
    def hosts(self) -> list[Seen]:
        odd = interpreter(python="3.12.1", tensorflow="2.20.0")
        return [seen("h1"), seen("h2", found={"python": odd}), seen("h3", found={"python": interpreter("3.11.2")})]

    def test_who_differs_from_most_is_told_so(self) -> None:
        found = one("tensorflow", *self.hosts(), host="h2")
        assert (found.state, found.why) == ("warn", "TensorFlow 2.20.0 here, 2.21.0 on most hosts")
        assert one("python", *self.hosts(), host="h2").why == "Python 3.12 here, 3.11 on most hosts"
        assert one("tensorflow", *self.hosts()).state == "ok"

    def test_a_run_says_so_in_a_line(self) -> None:
        assert differences(self.hosts()) == [
            "hosts differ: Python 3.11 on h1, h3; 3.12 on h2",
            "hosts differ: TensorFlow 2.21.0 on h1, h3; 2.20.0 on h2",
        ]

    def test_one_that_has_none_differs_too(self) -> None:
        hosts = [seen("h1"), seen("h2", found={"python": interpreter(tensorflow=None)})]
        assert differences(hosts) == ["hosts differ: TensorFlow 2.21.0 on h1; none on h2"]

    def test_of_hosts_that_were_not_asked_nothing_is_said(self) -> None:
        assert differences([seen("h1", found={"python": None}), seen("h2", premises=None)]) == []


class TestProgram:
    @pytest.mark.parametrize(
        ("lacks", "why"),
        [
            ({"folder": "/data/mine"}, "no such folder: /data/mine"),
            ({"script": "train.py"}, "no such script: train.py"),
            ({"folder": "/data", "program": "horse"}, "no such folder: /data"),
            ({"program": "horse"}, "no such program: horse"),
        ],
    )
    def test_what_is_not_there(self, lacks: dict[str, str], why: str) -> None:
        found = one("program", seen(found={"lacks": lacks}))
        assert (found.state, found.why) == ("bad", why)
        assert found.remedy

    @pytest.mark.parametrize(
        ("module", "why"),
        [
            ({**ABSENT, "missing": "pack"}, "no module named pack"),
            ({**THERE, "runs": False}, "pack.x is a package and cannot be run"),
            (THERE, ""),
        ],
    )
    def test_a_module(self, module: dict[str, Any], why: str) -> None:
        answer = interpreter()
        answer["modules"]["pack.x"] = module
        assert one("program", seen(found={"python": answer}), command=Module("pack.x")).why == why


def test_gpus_and_their_driver() -> None:
    facts = {"cores": [0], "gpus": ["0", "1"]}
    assert one("gpus", seen(facts=facts, found={"driver": "550.54"})).said == "2, driver 550.54"
    assert one("gpus", seen(facts=facts)).said == "2"


def test_little_room() -> None:
    found = one(
        "disk", seen(found={"disks": [{"path": "~", "free": 5 << 30}, {"path": "/dev/shm", "free": 64_000_000}]})
    )
    assert (found.state, found.why) == ("warn", "64 MB free at /dev/shm")


@pytest.mark.parametrize(
    ("ahead", "state", "said"), [(0.9, "ok", "right"), (2.0, "warn", "+2.0 s"), (-90, "warn", "-90.0 s")]
)
def test_clock(ahead: float, state: str, said: str) -> None:
    found = one("clock", seen(ahead=ahead))
    assert (found.state, found.said) == (state, said)


def test_peers_that_it_does_not_reach() -> None:
    dialled = [Dialled("h1", "h1", 1, "ok"), Dialled("h1", "h2", 1, "dropped"), Dialled("h1", "h2", 2, "dropped")]
    found = one("peers", seen(dialled=dialled))
    assert (found.state, found.said) == ("bad", "1 of 2")


@pytest.mark.parametrize(("unanswered", "check"), [("premises", "program"), ("dialled", "peers")])
def test_what_it_does_not_answer(unanswered: str, check: str) -> None:
    silent: dict[str, Any] = {unanswered: None}
    assert one(check, seen(**silent)).state == "bad"


class TestLeft:
    def left(self, **found: Any) -> Finding:
        return one("left", seen(left={"runs": [], "folders": [], **found}))

    def test_a_run_that_is_at_work_is_no_leftover(self) -> None:
        found = self.left(runs=[{"run": "train-1", "processes": 2, "alive": True}])
        assert (found.state, found.said) == ("ok", "1 at work")

    def test_processes_and_old_folders(self) -> None:
        found = self.left(
            runs=[{"run": "train-1", "processes": 2, "alive": False}],
            folders=[{"path": "a", "size": 5_000_000, "old": True}, {"path": "b", "size": 7, "old": False}],
        )
        assert found.state == "warn"
        assert found.why == "earlier runs have left 2 processes of train-1, 1 old folder with 5 MB"
        assert "--clean" in found.remedy

    def test_what_was_cleaned(self) -> None:
        assert one("left", seen(cleaned=["train-1"])).said == "1 cleaned"
