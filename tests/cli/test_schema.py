from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from launcher.cli.schema import document, schema
from launcher.host_keys import HOST
from launcher.keys import FILE, JOBS
from launcher.schema import Key, flaws, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "cluster.example.json"

SAMPLES: tuple[object, ...] = (
    *(None, True, False, -1, 0, 1, 2, 2.5, 65_535, 65_536, 1_000_000_000, 1_000_000_001),
    *("", "x", "a b", "-x", "X=1", "TF_CONFIG", "10.0.0.1", "::1", "user@x", "a.b", "a/b", "x" * 101, "\0", "é"),
    *("chief", "20000-20100", "1-", "20000-"),
    *([], [""], ["x"], ["x", ""], ["", "x"], ["x", "x"], ["TF_CONFIG"], [0], [1, 2], [1, 1], [1, "x"], [1, 2, 3]),
    *([-1], [None], [65_536], [0, 1], [["x"]], [{}], [{"address": "x"}], [{"address": "x", "wat": 1}]),
    *({}, {"x": "1"}, {"x": 1}, {"": "1"}, {"a=b": "1"}, {"TF_CONFIG": "1"}, {"chief": 1}, {"chief": 2}),
)


def examples() -> Iterator[tuple[str, dict[str, object]]]:
    for key in FILE.keys:
        for sample in SAMPLES:
            yield f"{key.name}={sample!r}", {key.name: sample}
    for key in HOST.keys:
        for sample in SAMPLES:
            yield f"hosts[].{key.name}={sample!r}", {"hosts": [{"address": "x", key.name: sample}]}
    for key in JOBS.keys:
        for sample in SAMPLES:
            yield f"jobs.{key.name}={sample!r}", {"jobs": {key.name: sample}}
    for one in ("script", "module", "command", "args"):
        for other in ("script", "module", "command", "args"):
            pair: dict[str, object] = {name: ["x"] if name in {"command", "args"} else "x" for name in (one, other)}
            yield f"{one} and {other}", pair


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(document())


def test_the_command_prints_the_document() -> None:
    result = CliRunner().invoke(schema)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == document()


def test_the_document_is_a_json_schema(validator: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(document())
    assert document()["$id"] == "urn:tflaunch:cluster.json"
    assert document()["additionalProperties"] is False


def test_the_example_is_valid(validator: Draft202012Validator) -> None:
    validator.validate(json.loads(EXAMPLE.read_text()))


def test_schema_and_parser_agree(validator: Draft202012Validator) -> None:
    verdicts = [(name, validator.is_valid(value), not list(flaws(FILE, value))) for name, value in examples()]
    assert [name for name, by_schema, by_parser in verdicts if by_schema is not by_parser] == []
    assert {by_schema for _, by_schema, _ in verdicts} == {True, False}


@pytest.mark.parametrize(
    "bad",
    [
        {"wrokers": 2},
        {"workers": "4"},
        {"workers": 0},
        {"hosts": [{"address": "-oProxyCommand=x"}]},
        {"hosts": [{"workers": 2}]},
        {"hosts": [{"address": "a", "prot": 22}]},
        {"hosts": [{"address": "a", "port": 0}]},
        {"jobs": {"evaluator": 2}},
        {"script": "a.py", "module": "a"},
        {"command": ["a"], "args": []},
        {"env": {"TF_CONFIG": "{}"}},
        {"ports": "any"},
        {"timeout": 0},
        {"output": "some"},
    ],
)
def test_bad_files_are_invalid(validator: Draft202012Validator, bad: dict[str, object]) -> None:
    assert not validator.is_valid(bad)
    assert list(flaws(FILE, bad))


def test_every_key_is_described() -> None:
    properties: dict[str, Any] = json.loads(json.dumps(document()))["properties"]
    assert list(properties) == [key.name for key in FILE.keys]
    assert properties["workers"]["description"].startswith("Workers in all. Spread evenly")
    assert properties["grace"]["default"] == 30


@pytest.mark.parametrize("key", [pytest.param(key, id=name) for name, key in walk(FILE)])
def test_defaults_and_examples_are_what_their_key_allows(key: Key) -> None:
    values = [*key.examples] if key.default is None else [*key.examples, key.default]
    assert [flaw for value in values for flaw in flaws(key.shape, value)] == []
