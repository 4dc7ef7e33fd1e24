"""The texts keep up with the code: keys, commands, flags, statuses and links that they name are there."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import click
import pytest

import launcher
from launcher import testing
from launcher.cli.commands import tflaunch
from launcher.errors import TflaunchError
from launcher.keys import FILE
from launcher.schema import Key, flaws, walk
from launcher.testing.settings import KNOWN

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
TEXTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(text: Path) -> str:
    return str(text.relative_to(ROOT))


def shell_lines(text: str) -> list[str]:
    """What a reader is shown to type: the lines of sh blocks, and those behind a $ in the others."""
    lines = [(language, line) for language, block in FENCE.findall(text) for line in block.splitlines()]
    return [line.removeprefix("$ ") for language, line in lines if language == "sh" or line.startswith("$ ")]


def invocations(text: str) -> list[list[str]]:
    """The arguments of every ``tflaunch`` among the commands."""
    found = []
    for line in shell_lines(text):
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words and Path(words[0]).name == "tflaunch":
                found.append(words[1:])
    return found


README = (ROOT / "README.md").read_text()


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[tuple[Path, str]]:
    return [
        (text, target)
        for text in TEXTS
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text.read_text()))
        if "://" not in target
    ]


@pytest.mark.parametrize(
    ("text", "target"), links(), ids=lambda value: name_of(value) if isinstance(value, Path) else value
)
def test_a_link_leads_somewhere(text: Path, target: str) -> None:
    file, _, anchor = target.partition("#")
    there = (text.parent / file) if file else text
    assert there.is_file()
    if anchor:
        assert anchor in anchors(there.read_text())


@pytest.mark.parametrize("arguments", invocations(README), ids=shlex.join)
def test_a_command_of_the_readme_can_be_parsed(arguments: list[str]) -> None:
    name, *rest = arguments
    context = click.Context(tflaunch)
    command = tflaunch.get_command(context, name)
    assert command is not None
    command.make_context(name, rest, parent=context)


def test_the_readme_shows_commands() -> None:
    assert {arguments[0] for arguments in invocations(README)} >= {"run", "train", "explain"}


@pytest.mark.parametrize("name", tflaunch.list_commands(click.Context(tflaunch)))
def test_the_readme_names_every_command(name: str) -> None:
    assert f"tflaunch {name}" in README


@pytest.mark.parametrize("command", re.findall(r"`tflaunch ([a-z]+)", "".join(text.read_text() for text in TEXTS)))
def test_a_command_in_a_sentence_is_there(command: str) -> None:
    assert tflaunch.get_command(click.Context(tflaunch), command) is not None


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`(--[a-z][a-z-]*)", README))))
def test_a_flag_in_a_sentence_is_there(flag: str) -> None:
    context = click.Context(tflaunch)
    commands = [tflaunch.get_command(context, name) for name in tflaunch.list_commands(context)]
    options = [option for command in commands if command for option in command.params]
    assert flag in {name for option in options for name in (*option.opts, *option.secondary_opts)}


def section(name: str) -> str:
    """What cluster-json.md says about a key."""
    text = (ROOT / "docs" / "cluster-json.md").read_text()
    found = re.search(rf"^### `{re.escape(name)}`\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/cluster-json.md does not have {name}"
    return " ".join(found[1].split())


@pytest.mark.parametrize(("name", "key"), list(walk(FILE)), ids=lambda value: value if isinstance(value, str) else "")
def test_every_key_is_documented_in_the_words_of_init(name: str, key: Key) -> None:
    said = section(name)
    assert f"{key.doc}." in said
    assert key.more in said
    default = f"`{json.dumps(key.default)}`" if key.default is not None else key.otherwise
    assert not default or f"Default: {default}." in said


@pytest.mark.parametrize(("name", "key"), list(walk(FILE)), ids=lambda value: value if isinstance(value, str) else "")
def test_every_key_has_examples_and_they_are_right(name: str, key: Key) -> None:
    examples = [
        json.loads(f"{{{found}}}") for found in re.findall(r"`(\".+?)`", section(name).partition("Example: ")[2])
    ]
    assert examples
    assert {one for example in examples for one in example} == {name.rpartition(".")[2]}
    assert [flaw for example in examples for flaw in flaws(key.shape, *example.values())] == []


def test_no_key_is_documented_that_is_not_there() -> None:
    documented = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "cluster-json.md").read_text(), re.MULTILINE)
    assert documented == [name for name, _ in walk(FILE)]


@pytest.mark.parametrize("status", sorted({kind.exit_status for kind in TflaunchError.__subclasses__()} - {1}))
def test_the_readme_tells_every_status_of_ours(status: int) -> None:
    assert f"\n| {status} |" in README


def examples() -> list[str]:
    """The test files that testing.md shows."""
    return [
        block for language, block in FENCE.findall((ROOT / "docs" / "testing.md").read_text()) if language == "python"
    ]


@pytest.mark.parametrize("text", examples(), ids=lambda text: re.findall(r"def (test_\w+)", text)[0])
def test_an_example_of_a_test_passes(pytester: pytest.Pytester, text: str) -> None:
    if "import tensorflow" in text and find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    pytester.makepyfile(text)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_settings_of_a_cluster_are_all_there() -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    assert {name for name in KNOWN if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("kind", [testing.Cluster, testing.UnderWay, testing.Ended])
def test_what_a_test_can_call_is_all_there(kind: type) -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    ours = {"labels", "sections", "close", "begin", "over", "order", "results", "until_step"}
    names = {name for name in vars(kind) if not name.startswith("_")} - ours
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_the_test_command_stands_on_one_line() -> None:
    lines = [line for line in README.splitlines() if re.match(r"python3 -m venv .* -m pytest", line)]
    assert len(lines) == 1


def test_the_python_api_is_all_there() -> None:
    text = (ROOT / "docs" / "python-api.md").read_text()
    attributes = {name for name in dir(launcher.Result) if not name.startswith("_")} | {"outcome"}
    arguments = set(signature(launcher.launch).parameters) - {"settings"}
    assert {name for name in attributes | arguments if f"`{name}`" not in text} == set()
