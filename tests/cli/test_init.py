from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from launcher.cli.init import init
from launcher.config import Script
from launcher.errors import RequestError
from launcher.keys import FILE
from launcher.layers import build, read_file
from launcher.schema import walk


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*args: str) -> Result:
    return CliRunner().invoke(init, args)


def test_it_writes_two_local_workers_of_train_py() -> None:
    result = invoke()
    assert result.exit_code == 0
    assert "Wrote cluster.json" in result.stdout
    config = build(read_file(Path("cluster.json")))
    assert (config.command, config.workers, config.engine) == (Script("train.py"), 2, "local")


def test_the_schema_it_names_is_there_and_fits() -> None:
    invoke()
    written = json.loads(Path("cluster.json").read_text())
    schema = json.loads(Path(written["$schema"]).read_text())
    Draft202012Validator(schema).validate(written)
    assert {path.name for path in Path().iterdir()} == {"cluster.json", ".tflaunch.schema.json"}


def test_it_writes_where_it_is_told_to() -> None:
    Path("sub").mkdir()
    assert invoke("sub/my.json").exit_code == 0
    assert {path.name for path in Path("sub").iterdir()} == {"my.json", ".tflaunch.schema.json"}


def test_it_explains_every_key_on_a_line_of_its_own_in_a_pipe() -> None:
    lines = invoke().stdout.splitlines()
    header, *rows = lines[: lines.index("")]
    assert [row.split()[0] for row in rows] == [name for name, _ in walk(FILE)]
    meaning = header.index("meaning")
    assert [row[meaning:].rstrip() for row in rows] == [key.doc for _, key in walk(FILE)]
    default = header.index("default")
    assert rows[[name for name, _ in walk(FILE)].index("grace")][default:meaning].strip() == "30"
    assert "\x1b" not in "".join(lines)


def test_it_does_not_overwrite() -> None:
    Path("cluster.json").write_text("mine")
    result = invoke()
    assert isinstance(result.exception, RequestError)
    assert str(result.exception) == "cluster.json: is there already\n  --force overwrites it"
    assert Path("cluster.json").read_text() == "mine"
    assert not Path(".tflaunch.schema.json").exists()


def test_it_overwrites_when_forced() -> None:
    Path("cluster.json").write_text("mine")
    assert invoke("--force").exit_code == 0
    assert build(read_file(Path("cluster.json"))).workers == 2


@pytest.mark.parametrize("args", [["absent/cluster.json"], ["absent/cluster.json", "--force"]])
def test_a_place_that_cannot_be_written(args: list[str]) -> None:
    result = invoke(*args)
    assert isinstance(result.exception, RequestError)
    assert str(result.exception) == "absent/cluster.json: cannot be written: No such file or directory"
