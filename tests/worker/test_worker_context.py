from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from worker.context import Context, ContextError, report

if TYPE_CHECKING:
    from tests.worker.conftest import Processes

TWO_WORKERS = {"worker": ["a:1", "b:1"]}
WITH_CHIEF = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"], "evaluator": ["e:1"]}


def configured(cluster: object, task: object) -> Context:
    return Context.from_environment({"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})})


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}, {"TF_CONFIG": '{"cluster": {}}'}])
def test_without_a_cluster_a_process_is_its_own_chief_and_alone(environment: dict[str, str]) -> None:
    assert Context.from_environment(environment) == Context("worker", 0, size=1, is_chief=True)


@pytest.mark.parametrize(
    ("cluster", "job", "index", "expected"),
    [
        (TWO_WORKERS, "worker", 0, Context("worker", 0, 2, is_chief=True)),
        (TWO_WORKERS, "worker", 1, Context("worker", 1, 2, rank=1, is_chief=False)),
        (TWO_WORKERS, "evaluator", 0, Context("evaluator", 0, 2, is_chief=False)),
        (WITH_CHIEF, "chief", 0, Context("chief", 0, 3, 1, is_chief=True)),
        (WITH_CHIEF, "worker", 0, Context("worker", 0, 3, 1, rank=1, is_chief=False)),
        (WITH_CHIEF, "ps", 0, Context("ps", 0, 3, 1, is_chief=False)),
        (WITH_CHIEF, "evaluator", 0, Context("evaluator", 0, 3, 1, is_chief=False)),
    ],
)
def test_a_task_finds_its_place(cluster: object, job: str, index: int, expected: Context) -> None:
    context = configured(cluster, {"type": job, "index": index})
    assert context == expected
    assert context.trains == (job in {"chief", "worker"})


@pytest.mark.parametrize(
    ("job", "index", "text"),
    [
        ("chief", 0, "chief of 3"),
        ("worker", 1, "worker 1 of 3"),
        ("ps", 0, "ps 0"),
    ],
)
def test_it_says_what_it_is(job: str, index: int, text: str) -> None:
    assert str(configured(WITH_CHIEF, {"type": job, "index": index})) == text


def test_worker_0_says_that_it_is_the_chief() -> None:
    assert str(configured(TWO_WORKERS, {"type": "worker", "index": 0})) == "worker 0 of 2, the chief"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{'cluster'", "not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"cluster": 3}', '"cluster" must map'),
        ('{"cluster": {"worker": "a:1"}}', 'job "worker" must be a list'),
        ('{"cluster": {"worker": []}}', "at least one address"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}}', "one chief"),
        ('{"cluster": {"worker": ["a:1"]}}', '"task" must hold'),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}', "whole number"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": true}}', "whole number"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "wroker", "index": 0}}', '"wroker" is none of chief'),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "no task worker 1"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}', "no task worker -1"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "names 0 of that job"),
    ],
)
def test_a_bad_tf_config_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(ContextError) as caught:
        Context.from_environment({"TF_CONFIG": text})
    message = str(caught.value)
    assert message.startswith("TF_CONFIG")
    assert told in message
    assert "\n" not in message


def test_a_report_goes_to_the_code_that_booted_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    boot = SimpleNamespace(report=lambda kind, **fields: told.append((kind, fields)))
    monkeypatch.setitem(sys.modules, "_tflaunch_boot", boot)
    report("progress", step=3, of=5, loss=0.5)
    assert told == [("progress", {"step": 3, "of": 5, "loss": 0.5})]


def test_a_report_goes_nowhere_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "_tflaunch_boot", raising=False)
    report("progress", step=3)


def test_it_imports_nothing_heavy(processes: Processes) -> None:
    program = "import sys, worker.context; print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])"
    assert processes.run("-c", program).out == "[]\n"
