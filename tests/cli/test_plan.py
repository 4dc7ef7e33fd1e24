from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from launcher.agent import facts
from launcher.cli.plan import plan
from launcher.errors import RequestError

TWO_HOSTS = {
    "command": ["true"],
    "hosts": [{"address": "a", "cores": [0, 1, 3], "gpus": 2}, {"address": "b", "cores": 2}],
    "workers": 3,
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in facts.KEPT:
        monkeypatch.delenv(name, raising=False)


def invoke(*args: str) -> Result:
    return CliRunner().invoke(plan, args)


def printed(*args: str) -> str:
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def document(*args: str) -> Any:
    return json.loads(printed("--json", *args))


def row(text: str, *starts: str) -> list[str]:
    """The words of the first row that starts with these."""
    found = (line.split() for line in text.splitlines())
    return next(words[len(starts) :] for words in found if words[: len(starts)] == list(starts))


class TestText:
    def test_the_tasks(self) -> None:
        text = printed("-n", "2", "--evaluator", "1", "--no-partition", "--ports", "20000-20010", "--", "true")
        assert text.splitlines()[0] == "true: 2 workers, 1 evaluator on this machine"
        assert row(text, "worker", "0")[0:2] == ["chief", "127.0.0.1"]
        assert row(text, "worker", "1")[-3:] == ["one", "of", "20000-20010"]
        assert "nobody dials it" in text

    def test_the_process(self) -> None:
        text = printed("--", "echo", "two words", "[bold]")
        assert "  echo 'two words' '[bold]'\n" in text
        assert '{"cluster":{"worker":["127.0.0.1:<leased>"]},"task":{"type":"worker","index":0}}' in text

    def test_where_each_setting_is_from(self) -> None:
        Path("cluster.json").write_text('{"command": ["true"], "workers": 3}')
        text = printed("cluster.json", "--grace", "2.5")
        assert row(text, "workers") == ["3", "cluster.json"]
        assert row(text, "grace") == ["2.5", "--grace"]
        assert row(text, "timeout") == ["-", "default"]
        assert row(text, "private") == ["no", "default"]

    def test_secrets_are_hidden(self) -> None:
        text = printed("-e", "API_KEY=hunter2", "-e", "PLAIN=seen", "--", "true")
        assert row(text, "API_KEY") == ["********", "--env"]
        assert row(text, "PLAIN") == ["seen", "--env"]
        assert "hunter2" not in text

    @pytest.mark.parametrize("value", ["[/x]", "[bold]x[/bold]", ":smile:", r"\[x]"])
    def test_values_are_shown_as_they_are(self, value: str) -> None:
        assert row(printed("-e", f"A={value}", "--run-dir", value, "--", "true"), "A") == [value, "--env"]

    def test_variables_that_differ_are_shown_for_each_task(self) -> None:
        assert row(printed("-n", "2", "--", "true"), "TFLAUNCH_TASK")[:2] == ["worker:0,", "worker:1"]

    def test_other_hosts_are_not_asked(self) -> None:
        Path("cluster.json").write_text(json.dumps(TWO_HOSTS))
        text = printed("cluster.json")
        assert text.splitlines()[0] == "true: 3 workers on 2 hosts"
        assert row(text, "worker", "0", "chief") == ["a", "0", "0", "any", "free", "port"]
        assert row(text, "worker", "1")[:3] == ["a", "1,3", "1"]
        assert row(text, "worker", "2")[:2] == ["b", "0-1"]
        assert (
            text.splitlines()[-1] == "hosts are not asked by plan: cores, GPUs and addresses are as cluster.json says"
        )


class TestJson:
    def test_the_whole_plan(self) -> None:
        shown = document("-n", "2", "--name", "mine", "--", "true")
        assert (shown["name"], shown["engine"], shown["origins"]["workers"]) == ("mine", "local", "-n")
        assert [task["task"] for task in shown["tasks"]] == ["worker 0", "worker 1"]
        task = shown["tasks"][1]
        assert (task["host"], task["argv"]) == ("127.0.0.1", ["true"])
        assert (task["job"], task["index"]) == ("worker", 1)
        assert task["env"]["TFLAUNCH_RUN"] == "mine-<time>-<id>"

    def test_it_holds_no_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORWARDED", "hunter2")
        assert "hunter2" not in printed("--json", "-e", "TOKEN=hunter2", "-e", "FORWARDED", "--", "true")

    def test_this_machine_is_asked(self) -> None:
        cores = facts.cores()
        assert document("--", "true")["tasks"][0]["cores"] == cores


class TestNothingIsStarted:
    def test_and_nothing_is_left(self) -> None:
        printed("-n", "2", "--", "touch", "started")
        assert list(Path().iterdir()) == []

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["absent.py"], "no such script: absent.py"),
            (["--", "no-such-program-here"], "no such program on PATH"),
            (["-e", "NOT_SET_ANYWHERE", "--", "true"], "not set here: NOT_SET_ANYWHERE"),
            (["-n", "0", "--", "true"], "-n: must be at least 1"),
        ],
    )
    def test_what_run_would_refuse_is_refused(self, args: list[str], message: str) -> None:
        result = invoke(*args)
        assert isinstance(result.exception, RequestError)
        assert message in str(result.exception)
