"""The shapes that JSON values may have.

A shape is plain data, which ``flaws`` holds a value against, and which ``tflaunch schema`` writes as JSON Schema: the
parser and the schema cannot drift apart.

The shapes are named tuples, not frozen dataclasses: those take 0.9 ms each to define (Python 3.11), and every start of
the launcher would pay it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from launcher.json_text import TWICE, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


MOST_TASKS = 65_535
"""On one host, where every task listens on a port of its own."""


class Flaw(NamedTuple):
    """Something wrong with a value. ``path`` leads from the value to the place: keys of objects, indices of lists."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""

    def below(self, step: str | int) -> Flaw:
        return self._replace(path=(step, *self.path))


class Text(NamedTuple):
    """A string without NUL that ``pattern`` matches whole and that is not one of ``reserved``.

    The pattern is written in what Python and ECMAScript, the dialect of JSON Schema, have in common.
    """

    noun: str = "a string"
    pattern: str = r"[^\u0000]+"
    reserved: tuple[str, ...] = ()


class Choice(NamedTuple):
    """One of a few strings."""

    options: tuple[str, ...]


class Integer(NamedTuple):
    """A whole number from ``least`` to ``most``, both included."""

    least: int
    most: int


# Some 31 years in seconds: clocks and timers overflow on much more.
LONGEST = 1_000_000_000


class Seconds(NamedTuple):
    """A length of time in seconds; none at all only where ``zero`` allows it."""

    zero: bool


class Boolean(NamedTuple):
    """True or false."""


class ListOf(NamedTuple):
    """A list of ``item``, at least ``least`` and at most ``most`` long; ``first`` is what its head must be, if given."""

    item: Shape
    least: int = 0
    most: int | None = None
    unique: bool = False
    first: Shape | None = None
    noun: str = "a list"


class MapOf(NamedTuple):
    """An object whose keys are free within ``names``."""

    names: Text
    values: Shape


class Object(NamedTuple):
    """An object with these keys and no others."""

    keys: tuple[Key, ...]


class Either(NamedTuple):
    """Several shapes, told apart by the JSON type of the value."""

    shapes: tuple[Text | Integer | Boolean | ListOf, ...]


Shape = Text | Choice | Integer | Seconds | Boolean | ListOf | MapOf | Object | Either


class Key(NamedTuple):
    """A key of an object and all there is to know about it.

    Attributes:
        doc: what it means, in one line.
        more: what else there is to say, in whole sentences.
        default: the value where the key is not given; None when there is none, or when it is found out.
        otherwise: in words, how a default is found out.
        excludes: keys that cannot stand beside this one.
    """

    name: str
    shape: Shape
    doc: str
    more: str = ""
    default: object = None
    otherwise: str = ""
    required: bool = False
    excludes: tuple[str, ...] = ()
    examples: tuple[object, ...] = ()


def kinds(shape: Shape) -> tuple[type, ...]:
    """The types of Python that JSON values of this shape have."""
    match shape:
        case Text() | Choice():
            return (str,)
        case Integer():
            return (int,)
        case Seconds():
            return (int, float)
        case Boolean():
            return (bool,)
        case ListOf():
            return (list, tuple)
        case MapOf() | Object():
            return (dict,)
        case Either(shapes):
            return tuple(kind for each in shapes for kind in kinds(each))


def noun(shape: Shape) -> str:
    """What a message calls a value of this shape."""
    match shape:
        case Text(noun=given) | ListOf(noun=given):
            return given
        case Choice(options):
            return f"one of {', '.join(options)}"
        case Integer():
            return "an integer"
        case Seconds():
            return "a number of seconds"
        case Boolean():
            return "true or false"
        case MapOf() | Object():
            return "an object"
        case Either(shapes):
            return " or ".join(map(noun, shapes))


def nearest(word: str, known: Iterable[str]) -> str:
    """Hint at the known word that ``word`` was most likely meant to be; empty when none is near."""
    import difflib

    return "".join(f'did you mean "{match}"?' for match in difflib.get_close_matches(word.lower(), known, n=1))


def walk(shape: Shape, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yield every key within ``shape`` with its full name, such as ``jobs.chief`` and ``hosts[].address``."""
    match shape:
        case Object(keys):
            for key in keys:
                name = f"{prefix}.{key.name}".lstrip(".")
                yield name, key
                yield from walk(key.shape, name)
        case ListOf(item):
            yield from walk(item, f"{prefix}[]")


def flaws(shape: Shape, value: object) -> Iterator[Flaw]:
    """Yield everything that is wrong with ``value``, in the order of the value."""
    if value is TWICE:
        yield Flaw((), "is given twice")
        return
    # The exact type: Python's True is an int, JSON's is not.
    if type(value) not in kinds(shape):
        yield Flaw((), f"must be {noun(shape)}, got {shown(value)}", _remedy(shape, value))
        return
    match shape, value:
        case Either(shapes), _:
            yield from flaws(next(each for each in shapes if type(value) in kinds(each)), value)
        case Text() as text, str() as string:
            yield from _text_flaws(text, string)
        case Choice(options), str() as string if string not in options:
            yield Flaw((), f"must be {noun(shape)}, got {shown(string)}", nearest(string, options))
        case Integer() as integer, int() as number:
            yield from _integer_flaws(integer, number)
        case Seconds(zero), (int() | float()) as number if not (0 <= number <= LONGEST and (zero or number)):
            bound = "at least 0" if zero else "more than 0"
            yield Flaw((), f"must be {bound} and at most {LONGEST} seconds, got {shown(number)}")
        case ListOf() as of, (list() | tuple()) as items:
            yield from _list_flaws(of, items)
        case MapOf(names, values), dict() as pairs:
            for name, each in pairs.items():
                yield from (flaw.below(name) for flaw in (*flaws(names, name), *flaws(values, each)))
        case Object() as known, dict() as pairs:
            yield from _object_flaws(known, pairs)


def _remedy(shape: Shape, value: object) -> str:
    if value is None:
        return "leave the key out for its default"
    if int in kinds(shape) and isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
        return "without the quotes"
    if kinds(shape) == (str,) and isinstance(value, (int, float)):
        return f'in quotes: "{shown(value)}"'
    return ""


def _text_flaws(shape: Text, string: str) -> Iterator[Flaw]:
    if "\0" in string:
        yield Flaw((), f"must not hold a NUL character, got {shown(string)}")
    elif not _encodable(string):
        yield Flaw((), f"must not hold half a character (a lone surrogate), got {shown(string)}")
    elif string in shape.reserved:
        yield Flaw((), f"{string} is not yours to set: tflaunch gives every worker its own")
    elif not re.fullmatch(shape.pattern, string):
        yield Flaw((), f"must be {shape.noun}, got {shown(string)}" if string else "must not be empty")


def _encodable(string: str) -> bool:
    try:
        # An argument that is no UTF-8 comes from the system in this form, and goes back to it in the same.
        string.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _integer_flaws(shape: Integer, number: int) -> Iterator[Flaw]:
    if number < shape.least:
        yield Flaw((), f"must be at least {shape.least}, got {shown(number)}")
    elif number > shape.most:
        yield Flaw((), f"must be at most {shape.most}, got {shown(number)}")


def _list_flaws(shape: ListOf, items: list[object] | tuple[object, ...]) -> Iterator[Flaw]:
    if len(items) < shape.least or (shape.most is not None and len(items) > shape.most):
        counted = f"{len(items)} items" if items else "an empty one"
        yield Flaw((), f"must be {shape.noun}, got {counted}")
    for index, item in enumerate(items):
        expected = shape.first if shape.first and index == 0 else shape.item
        yield from (flaw.below(index) for flaw in flaws(expected, item))
        if shape.unique and item in items[:index]:
            yield Flaw((index,), f"{shown(item)} stands here twice")


def _object_flaws(shape: Object, pairs: Mapping[str, object]) -> Iterator[Flaw]:
    known = {key.name: key for key in shape.keys}
    for name, value in pairs.items():
        if name in known:
            yield from (flaw.below(name) for flaw in flaws(known[name].shape, value))
        else:
            hint = nearest(name, (each for each, _ in walk(shape)))
            yield Flaw((name,), "unknown key", hint or f"known: {', '.join(known)}")
    for key in shape.keys:
        if key.required and key.name not in pairs:
            yield Flaw((), f'needs the key "{key.name}"')
        if key.name in pairs:
            yield from (Flaw((other,), f"cannot stand beside {key.name}") for other in key.excludes if other in pairs)
