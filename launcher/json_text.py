"""JSON text: reading an object from it, naming a value of it in a message, and writing a document."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Final

from launcher.errors import ConfigError, Fault, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TWICE: Final = object()
"""Stands for the value of a key that its object gives twice, so that it is found with all other flaws."""


def read_object(source: str, text: str) -> dict[str, object]:
    """Read JSON text that holds an object; a key that an object gives twice has the value ``TWICE``.

    Raises:
        RequestError: the text is not JSON, or holds no object.
    """
    if not text.strip():
        raise RequestError(f"{source}: is empty", f"`tflaunch init --force {source}` writes one to start from")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=_number)
    except json.JSONDecodeError as error:
        hint = _SLIPS.get(text[error.pos : error.pos + 1], "")
        raise RequestError(f"{source}:{error.lineno}:{error.colno}: not JSON: {error.msg}", hint) from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or as many brackets.
        raise RequestError(f"{source}: not JSON that can be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(source, (Fault("$", f"must be an object, got {shown(value)}"),))
    return value


_SLIPS = {
    "/": "JSON has no comments",
    "#": "JSON has no comments",
    "'": "strings stand in double quotes",
    "}": "before it a value is missing, or there is a comma too many",
    "]": "before it a value is missing, or there is a comma too many",
    "T": "JSON writes true",
    "F": "JSON writes false",
    "N": "JSON writes null",
}
"""What the character that a JSON parser stops at tells about the slip."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    times = Counter(name for name, _ in pairs)
    return {name: TWICE if times[name] > 1 else value for name, value in pairs}


def _number(text: str) -> int | float:
    # JSON has one kind of number: 4.0 is 4.
    number = float(text)
    return int(number) if number.is_integer() else number


def shown(value: object) -> str:
    """The value as a message names it: short, on one line, in ASCII."""
    match value:
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            text = json.dumps(value)
            return text if len(text) <= 60 else f"{text[:57]}..."


def document(content: Mapping[str, object]) -> str:
    """A document for people and programs: a line for each key, and for each element of a list of objects.

    Indented throughout, a plan of 1,000 tasks would be 26,000 lines, and takes four times as long to write (Python 3.11).
    """
    return f"{{\n{_lines([f'{json.dumps(key)}: {_entry(value)}' for key, value in content.items()])}\n}}\n"


def _entry(value: object) -> str:
    match value:
        case [dict(), *_]:
            return f"[\n{_lines([f'  {_compact(one)}' for one in value])}\n  ]"
        case _:
            return _compact(value)


def _lines(lines: Iterable[str]) -> str:
    return ",\n".join(f"  {line}" for line in lines)


def _compact(value: object) -> str:
    return json.dumps(value, default=str)
