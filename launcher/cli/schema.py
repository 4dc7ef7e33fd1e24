"""``tflaunch schema``: the JSON Schema of cluster.json, made from the table that the parser reads."""

from __future__ import annotations

import click

from launcher.keys import FILE
from launcher.schema import LONGEST, Boolean, Choice, Either, Integer, Key, ListOf, MapOf, Object, Seconds, Shape, Text


@click.command()
def schema() -> None:
    """Print the JSON Schema of cluster.json, for editors and other programs."""
    import json

    click.echo(json.dumps(document(), indent=2))


def document() -> dict[str, object]:
    """The JSON Schema (draft 2020-12) of cluster.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        # A name and no address: editors take the schema from a file, without a network.
        "$id": "urn:tflaunch:cluster.json",
        "title": "cluster.json",
        "description": "A cluster of TensorFlow workers for tflaunch to run.",
        **json_schema(FILE),
        "examples": [{"script": "train.py", "workers": 4}],
    }


def json_schema(shape: Shape) -> dict[str, object]:
    """Describe ``shape`` as JSON Schema."""
    match shape:
        case Text(_, pattern, reserved):
            taken: dict[str, object] = {"not": {"enum": list(reserved)}} if reserved else {}
            return {"type": "string", "pattern": f"^(?:{pattern})$"} | taken
        case Choice(options):
            return {"enum": list(options)}
        case Integer(least, most):
            return {"type": "integer", "minimum": least, "maximum": most}
        case Seconds(zero):
            return {"type": "number", "minimum" if zero else "exclusiveMinimum": 0, "maximum": LONGEST}
        case Boolean():
            return {"type": "boolean"}
        case ListOf():
            return _list_schema(shape)
        case MapOf(names, values):
            return {"type": "object", "propertyNames": json_schema(names), "additionalProperties": json_schema(values)}
        case Object():
            return _object_schema(shape)
        case Either(shapes):
            return {"anyOf": [json_schema(each) for each in shapes]}


def _list_schema(shape: ListOf) -> dict[str, object]:
    schema: dict[str, object] = {"type": "array", "items": json_schema(shape.item)}
    if shape.first:
        schema["prefixItems"] = [json_schema(shape.first)]
    if shape.least:
        schema["minItems"] = shape.least
    if shape.most is not None:
        schema["maxItems"] = shape.most
    if shape.unique:
        schema["uniqueItems"] = True
    return schema


def _object_schema(shape: Object) -> dict[str, object]:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {key.name: _property(key) for key in shape.keys},
        "additionalProperties": False,
    }
    if required := [key.name for key in shape.keys if key.required]:
        schema["required"] = required
    if apart := [[key.name, other] for key in shape.keys for other in key.excludes]:
        schema["allOf"] = [{"not": {"required": pair}} for pair in apart]
    return schema


def _property(key: Key) -> dict[str, object]:
    default = f"Default: {key.otherwise}." if key.otherwise else ""
    schema: dict[str, object] = {"description": " ".join(filter(None, (f"{key.doc}.", key.more, default)))}
    schema |= json_schema(key.shape)
    if key.default is not None:
        schema["default"] = key.default
    if key.examples:
        schema["examples"] = list(key.examples)
    return schema
