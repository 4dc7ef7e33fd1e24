"""``launcher.launch``: what ``tflaunch run`` does, for programs."""

from __future__ import annotations

from pathlib import Path

import pytest

import launcher
from launcher.errors import ConfigError, RequestError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_result_tells_what_became_of_each_task(here: Path) -> None:
    (here / "script.py").write_text(
        "import os, sys; print('hi'); sys.exit(3 * (os.environ['TFLAUNCH_TASK'] == sys.argv[1]))"
    )
    good = launcher.launch("script.py", ["nobody"], workers=2)
    assert (good.ok, good.exit_status, good.exit_codes) == (True, 0, {"worker 0": 0, "worker 1": 0})
    assert {path.read_text() for path in good.logs.values()} == {"hi\n"}
    bad = launcher.launch("script.py", ["worker:1"], workers=2)
    assert (bad.ok, bad.exit_status) == (False, 3)
    assert bad.verdict.cause is not None
    assert bad.verdict.cause.label == "worker 1"
    assert bad.run_dir.is_relative_to("runs")


def test_settings_are_those_of_a_cluster_json(here: Path) -> None:
    (here / "cluster.json").write_text('{"command": ["sh", "-c", "echo $A$B"], "env": {"A": "a"}}')
    result = launcher.launch(config="cluster.json", env={"B": "b"}, jobs={"chief": 1})
    assert {label: path.read_text() for label, path in result.logs.items()} == {"chief 0": "ab\n", "worker 0": "ab\n"}
    assert launcher.launch(command=["sh", "-c", "kill -9 $$"]).exit_codes == {"worker 0": -9}


def test_output_goes_nowhere_unless_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    launcher.launch(command=["echo", "hello"])
    assert capfd.readouterr() == ("", "")
    launcher.launch(command=["echo", "hello"], output="all")
    assert capfd.readouterr().out == "worker 0 | hello\n"


def test_a_bad_request_is_an_exception() -> None:
    with pytest.raises(RequestError, match=r"no such script: nosuch\.py"):
        launcher.launch("nosuch.py")
    with pytest.raises(ConfigError) as caught:
        launcher.launch("nosuch.py", workers=0, nonsense=1)
    assert [fault.path for fault in caught.value.faults] == ["workers=", "nonsense=", "script="]
