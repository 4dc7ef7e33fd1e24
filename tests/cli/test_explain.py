from __future__ import annotations

import json
import socket
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from launcher.cli import explain as module
from launcher.cli.explain import describe, explain
from launcher.errors import RequestError
from launcher.tf_config import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

PAIR = {"worker": ["a.example:2222", "b.example:2222"]}
GOOD = json.dumps({"cluster": PAIR, "task": {"type": "worker", "index": 1}})
WRONG = json.dumps({"cluster": PAIR, "task": {"type": "worker", "index": 2}})


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are looked up in no network, and TF_CONFIG is not set."""
    known = {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "192.0.2.1": "192.0.2.1"}

    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (known[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.delenv("TF_CONFIG", raising=False)


def invoke(
    *args: str, stdin: str | bytes = "", color: bool = False, env: Mapping[str, str] = MappingProxyType({})
) -> Result:
    return CliRunner().invoke(explain, args, input=stdin, env={"NO_COLOR": None, "TERM": "xterm", **env}, color=color)


def meaning(jobs: object, job: str | None = None, index: int = 0) -> dict[str, str]:
    task = {} if job is None else {"task": {"type": job, "index": index}}
    return describe(parse(json.dumps({"cluster": jobs, **task})))


# Where it comes from


def test_it_is_taken_from_the_argument_a_file_standard_input_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "tf_config.json"
    file.write_text("\ufeff" + GOOD, encoding="utf-8")
    results = [invoke(f"  {GOOD}"), invoke(str(file)), invoke("-", stdin=GOOD), invoke(env={"TF_CONFIG": GOOD})]
    assert [result.exit_code for result in results] == [0] * 4
    assert {result.stdout for result in results} == {results[0].stdout}
    assert "worker 1, number 2 of 2 in the collective" in results[0].stdout


def test_the_argument_goes_before_the_environment() -> None:
    assert invoke(GOOD, env={"TF_CONFIG": WRONG}).exit_code == 0


@pytest.mark.parametrize(
    ("args", "stdin", "env", "message"),
    [
        ((), "", {}, "TF_CONFIG is not set"),
        ((), "", {"TF_CONFIG": " "}, "TF_CONFIG: empty"),
        (("-",), "", {}, "standard input: empty"),
        (("-",), b"\xff\xfe", {}, "standard input: not UTF-8 at byte 0"),
        (("-",), "{]", {}, "standard input: line 1, column 2: not JSON"),
        (("{]",), "", {}, "TF_CONFIG: line 1, column 2: not JSON"),
        (("missing.json",), "", {}, "missing.json: cannot be read: No such file or directory"),
        (("/",), "", {}, "/: cannot be read: Is a directory"),
    ],
)
def test_what_cannot_be_read_is_a_wrong_request(
    args: tuple[str, ...], stdin: str | bytes, env: dict[str, str], message: str
) -> None:
    result = invoke(*args, stdin=stdin, env=env)
    assert isinstance(result.exception, RequestError)
    assert message in str(result.exception)


# What it says


def test_the_meaning_comes_first_and_then_the_verdict() -> None:
    result = invoke(GOOD)
    assert result.stdout == (
        "cluster    2 workers on 2 hosts\n"
        "chief      worker 0, as there is no job named chief\n"
        "strategy   MultiWorkerMirroredStrategy: 2 processes train as one, each with all the variables\n"
        "this task  worker 1, number 2 of 2 in the collective\n"
        "listens    on port 2222 of every interface; peers dial b.example:2222\n"
        "dials      worker 0 at a.example:2222, which leads, and other members, as the collective needs\n"
        "\n"
        "Nothing is wrong with it.\n"
    )


def test_an_error_makes_the_status_2() -> None:
    result = invoke(WRONG)
    assert result.exit_code == 2
    assert "error      $.task.index: there is no worker 2 (the cluster lists worker 0, worker 1)\n" in result.stdout
    assert "Nothing is wrong" not in result.stdout


def test_a_warning_leaves_the_status_0() -> None:
    result = invoke(GOOD.replace('"index": 1', '"index": "1"'))
    assert result.exit_code == 0
    assert "warning    $.task.index: " in result.stdout


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (WRONG, 2)])
def test_json_says_the_same_to_programs(text: str, status: int) -> None:
    result = invoke("--json", text)
    document = json.loads(result.stdout)
    assert result.exit_code == status
    assert document["meaning"] == describe(parse(text))
    assert [finding["severity"] for finding in document["findings"]] == ["error"] * (status == 2)
    assert all(set(finding) == {"severity", "path", "message", "hint"} for finding in document["findings"])


def test_colour_is_for_terminals_that_want_it() -> None:
    assert "\x1b[31merror" in invoke(WRONG, color=True).stdout
    assert "\x1b" not in invoke(WRONG).stdout
    assert "\x1b" not in invoke(WRONG, color=True, env={"NO_COLOR": "1"}).stdout
    assert "\x1b" not in invoke(WRONG, color=True, env={"TERM": "dumb"}).stdout


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ({"worker": ["a:1"]}, "1 worker on 1 host"),
        ({"worker": ["a:1", "a:2", "[::1]:1"]}, "3 workers on 2 hosts"),
        (
            {"chief": ["a:1"], "worker": ["a:2", "b:1"], "ps": ["p:1", "q:1"]},
            "1 chief, 2 workers and 2 parameter servers on 4 hosts",
        ),
    ],
)
def test_the_cluster_is_counted(jobs: object, words: str) -> None:
    assert meaning(jobs)["cluster"] == words


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        (PAIR, "worker 0, as there is no job named chief"),
        ({"chief": ["c:1"], **PAIR}, "chief 0, as there is a job named chief"),
        ({"ps": ["p:1"]}, "none"),
    ],
)
def test_it_says_who_is_chief_and_why(jobs: object, words: str) -> None:
    assert meaning(jobs)["chief"] == words


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ({"chief": ["c:1"], **PAIR}, "MultiWorkerMirroredStrategy: 3 processes train as one"),
        ({"worker": ["a:1"]}, "MultiWorkerMirroredStrategy, though a single process can do without"),
        ({"chief": ["c:1"], **PAIR, "ps": ["p:1"]}, "ParameterServerStrategy: the chief coordinates"),
        ({"evaluator": ["e:1"]}, "none: nobody trains"),
    ],
)
def test_it_says_which_strategy_fits(jobs: object, words: str) -> None:
    assert meaning(jobs)["strategy"].startswith(words)


WITH_CHIEF = {"chief": ["c:1"], **PAIR}
WITH_PS = {**WITH_CHIEF, "ps": ["p:1"]}


@pytest.mark.parametrize(
    ("jobs", "job", "index", "words"),
    [
        (PAIR, "worker", 0, "worker 0, number 1 of 2 in the collective, and the chief"),
        (WITH_CHIEF, "worker", 0, "worker 0, number 2 of 3 in the collective"),
        (WITH_CHIEF, "chief", 0, "chief 0, number 1 of 3 in the collective, and the chief"),
        (WITH_PS, "chief", 0, "chief 0, which coordinates"),
        (WITH_PS, "worker", 1, "worker 1, which serves the chief"),
        (PAIR, "worker", 7, "worker 7, which is not in the cluster"),
        ({"wroker": ["a:1"]}, "wroker", 0, "wroker 0, outside the collective"),
        (
            PAIR,
            "evaluator",
            0,
            "evaluator 0, outside the collective: evaluates checkpoints under a strategy for one machine",
        ),
    ],
)
def test_it_says_what_this_task_is(jobs: object, job: str, index: int, words: str) -> None:
    assert meaning(jobs, job, index)["this task"] == words


@pytest.mark.parametrize(
    ("jobs", "job", "index", "words"),
    [
        (PAIR, "worker", 0, "other members, as the collective needs; all of them dial it"),
        (WITH_CHIEF, "worker", 0, "chief 0 at c:1, which leads, and other members, as the collective needs"),
        ({"worker": ["a:1"]}, "worker", 0, "nobody: it is alone"),
        (WITH_PS, "chief", 0, "all workers and parameter servers"),
        (WITH_PS, "ps", 0, "its peers, once the chief has called"),
    ],
)
def test_it_says_whom_this_task_dials(jobs: object, job: str, index: int, words: str) -> None:
    assert meaning(jobs, job, index)["dials"] == words


@pytest.mark.parametrize(("job", "index"), [("evaluator", 0), ("worker", 7)])
def test_who_is_not_in_the_cluster_neither_listens_nor_dials(job: str, index: int) -> None:
    assert not {"listens", "dials"} & meaning(PAIR, job, index).keys()


def test_of_a_chief_that_is_not_listed_it_says_so() -> None:
    told = meaning({"chief": [], **PAIR}, "worker", 0)
    assert told["chief"] == "none"
    assert told["dials"].startswith("chief 0 at an address that is not listed")


def test_without_a_task_or_a_cluster_there_is_less_to_say() -> None:
    assert meaning(PAIR)["this task"] == "not named"
    assert meaning({}) == {"cluster": "none: the process trains alone, as if TF_CONFIG were not set"}


# What listens here

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(port: int, state: str) -> str:
    return f"   0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1\n"


def here(address: str) -> str:
    return json.dumps({"cluster": {"worker": [address]}, "task": {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("localhost:4000", True),
        ("localhost:4001", False),  # listening, IPv4
        ("localhost:4002", False),  # listening, IPv6
        ("localhost:4003", True),  # connected, not listening
        ("192.0.2.1:4000", False),  # a documentation address: nobody's, so not this machine's
        ("elsewhere.example:4000", False),
    ],
)
def test_a_port_of_this_machine_is_looked_up(
    address: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tcp").write_text(HEADER + row(4001, "0A") + row(4003, "01"))
    (tmp_path / "tcp6").write_text(HEADER + row(4002, "0A"))
    monkeypatch.setattr(module, "_PROC_NET", tmp_path)
    result = invoke(here(address))
    assert result.exit_code == 0
    assert ("nothing listens on port" in result.stdout) is told


def test_without_proc_nothing_is_said_about_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROC_NET", tmp_path)
    assert "Nothing is wrong with it." in invoke(here("localhost:4000")).stdout


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_a_real_listening_socket_is_seen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        text = here(f"127.0.0.1:{server.getsockname()[1]}")
        assert "nothing listens on port" in invoke(text).stdout
        server.listen()
        assert "Nothing is wrong with it." in invoke(text).stdout
