"""JSON as the standard has it: without NaN and Infinity, which Python writes and other programs refuse; and records of
it that are what their types say."""

import functools
import json
import math
from typing import Any, TypeVar

Value = TypeVar("Value")


def to_json(value: Any, **options: Any) -> str:
    """The text of a value; null stands for a number that is not finite.

    Args:
        value: dictionaries, lists and plain values.
        options: of `json.dumps`.
    """
    return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """A nest of dictionaries and lists with None for each number that is not finite."""
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(content: bytes, kind: type[Value]) -> Value:
    """Read a record.

    Args:
        content: a JSON object.
        kind: a dataclass; its fields, and those of the dataclasses in it, say what there must be.

    Raises:
        ValueError: if there is something else; it says where and what in one line.
    """
    from pydantic import ValidationError

    try:
        record: Value = _reader(kind).validate_json(content, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return record


@functools.cache
def _reader(kind: Any) -> Any:
    # It takes a moment to import, and only what reads needs it.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
