"""What is wrong with a request is said in one clear message; nothing is started, and nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conftest import Command

FILES = {
    "empty.json": "",
    "broken.json": '{"workers": 2,,}',
    "list.json": "[]",
    "faulty.json": '{"script": "noop.py", "workers": -1, "nmae": "x", "hosts": [{"address": "a"}, {"address": "a"}]}',
    "absent.json": '{"script": "no.py", "engine": "locla", "forward": ["NOT_SET_ANYWHERE"], "python": "nopy", "workers": 0}',
    "engine.json": '{"script": "noop.py", "engine": "locla"}',
}


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["run", "nosuch.py"], 2, "no such script: nosuch.py"),
        (["run", "true"], 2, "to run a program, put -- before it"),
        (["run", "--", "./noop.py"], 2, "not executable: ./noop.py"),
        (["run", "--", "nosuchprogram"], 2, "no such program on PATH: nosuchprogram"),
        (["run", "-n", "4", "-m", "nosuch.module"], 2, "no module named nosuch"),
        (["run", "-n", "4", "-m", "package"], 2, "package is a package and cannot be run"),
        (["run", "missing.json"], 2, "missing.json: no such file"),
        (["run", "empty.json"], 2, "empty.json: is empty"),
        (["run", "broken.json"], 2, "broken.json:1:15: not JSON"),
        (["run", "list.json"], 2, "must be an object, got a list"),
        (["run", "engine.json"], 2, '$.engine: there is no engine "locla" here (did you mean "local"?)'),
        (["run", "-n", "0", "noop.py"], 2, "-n: must be at least 1, got 0"),
        (["run", "-n", "-2", "noop.py"], 2, "-n: must be at least 1, got -2"),
        (["run", "-n", "two", "noop.py"], 2, "'two' is not a valid integer"),
        (["run", "-n", "3", "--ports", "20000-20001", "noop.py"], 2, "--ports: hold 2 ports, but one host needs 3"),
        (["run", "--ports", "20001-20000", "noop.py"], 2, "--ports: run backwards"),
        (["run", "-e", "NOT_SET_ANYWHERE", "noop.py"], 2, "not set here: NOT_SET_ANYWHERE"),
        (["run", "--gpus-per-task", "64", "noop.py"], 2, "1 with 64 each"),
        (["run", "--run-dir", "/proc/nowhere", "noop.py"], 2, "cannot keep the run under /proc/nowhere"),
        (["run", "--python", "nosuchpython", "noop.py"], 2, "no such Python interpreter: nosuchpython"),
        (["run", "--cwd", "nowhere", "noop.py"], 2, "no such working directory: nowhere"),
        (["run"], 2, "nothing to run"),
        (["run", "-m"], 2, "-m needs the name of a module"),
        (["run", "--nonsense", "noop.py"], 2, "No such option"),
        (["plan", "nosuch.py"], 2, "no such script: nosuch.py"),
        (["nonsense"], 2, "No such command"),
    ],
)  # fmt: skip
def test_message_and_status(tflaunch: Command, args: list[str], status: int, words: str) -> None:
    for name, text in {**FILES, "noop.py": "", "package/__init__.py": ""}.items():
        tflaunch.script(text, name)
    before = sorted(tflaunch.cwd.rglob("*"))
    ended = tflaunch(*args)
    assert ended.status == status, ended.err
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == b""
    assert sorted(tflaunch.cwd.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "places"),
    [
        ("faulty.json", ["$.workers", "$.nmae", "$.hosts[1].address", "$.script"]),
        ("absent.json", ["$.workers", "$.engine", "$.forward[0]", "$.python", "$.script"]),
    ],
)
def test_all_faults_of_a_file_at_once_each_with_its_path(tflaunch: Command, file: str, places: list[str]) -> None:
    tflaunch.script(FILES[file], file)
    ended = tflaunch("run", file)
    assert ended.status == 2
    assert [line.split(":")[0].strip() for line in ended.err.splitlines()[1:]] == places
    assert "did you mean" in ended.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("def (:", "SyntaxError: invalid syntax"),
    ],
)
@pytest.mark.parametrize("command", [["script.py"], ["-m", "script"]])
def test_what_does_not_import_is_shown_once(tflaunch: Command, command: list[str], text: str, words: str) -> None:
    tflaunch.script(text)
    ended = tflaunch("run", "-n", "4", *command)
    assert ended.status == 1
    assert ended.out.count(words.encode()) == 1
    assert ended.err.count(words) == 2  # the verdict, and the last lines of the task that failed first
    assert words.encode() in ended.log(ended.outcome["cause"].replace(" ", "-"))


def test_a_missing_tensorflow_is_one_line(tflaunch: Command, tmp_path: Path) -> None:
    # A virtual environment whose packages are ours, but without TensorFlow: what `pip install tflaunch` gives.
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    import click
    import rich

    import launcher

    wanted = {Path(module.__file__ or "").parents[1] for module in (click, rich, launcher)}
    bare = tmp_path / "bare" / "bin" / "python"
    links = next((tmp_path / "bare").glob("lib/python*/site-packages"))
    for package in ("launcher", "worker", "click", "rich", "markdown_it", "mdurl", "pygments"):
        source = next((folder / package for folder in wanted if (folder / package).exists()), None)
        if source is not None:
            (links / package).symlink_to(source)
    run = [str(bare), "-c", "from launcher.cli.main import main; main()", "train", "digits", "-n", "2"]
    ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 69, ended.stderr
    assert ended.stderr.startswith("tflaunch: TensorFlow is not installed for ")
    assert "pip install 'tflaunch[tensorflow]'" in ended.stderr
    assert not (tmp_path / "runs").exists()
