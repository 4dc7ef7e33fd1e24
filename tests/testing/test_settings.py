from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import ConfigError, RequestError
from launcher.testing.settings import KNOWN, settings_of


def test_they_are_those_of_run(tmp_path: Path) -> None:
    config = settings_of(
        tmp_path, {"workers": 3, "chief": True, "evaluator": 1, "env": {"A": "1"}, "ports": "20000-20009"}
    )
    assert (config.workers, config.chief, config.evaluator, config.ps) == (3, 1, 1, 0)
    assert (config.env, config.ports, config.run_dir) == ({"A": "1"}, (20000, 20009), str(tmp_path))


def test_there_is_a_deadline_and_no_gpu_unless_it_is_asked_for(tmp_path: Path) -> None:
    config = settings_of(tmp_path, {})
    assert (config.workers, config.timeout, config.gpus_per_task) == (2, 120.0, 0)


def test_links_take_a_network_of_their_own(tmp_path: Path) -> None:
    assert [
        (one.links, one.private) for one in (settings_of(tmp_path, {}), settings_of(tmp_path, {"links": True}))
    ] == [
        (False, False),
        (True, True),
    ]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        settings_of(tmp_path, {"workers": 0, "timeout": 0, "evaluator": 2})
    assert [fault.path for fault in found.value.faults] == ["workers=", "jobs=", "timeout="]


def test_one_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"a cluster has no setting time_out\n  did you mean .*timeout"):
        settings_of(tmp_path, {"time_out": 3})
    with pytest.raises(RequestError, match="known: workers, chief"):
        settings_of(tmp_path, {"zebra": 3})
    assert "timeout" in KNOWN


def test_a_task_starts_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFLAUNCH_TASK", "evaluator:0")
    with pytest.raises(RequestError, match="this is evaluator 0 of a cluster already"):
        settings_of(tmp_path, {})
