"""Strict JSON: without NaN and Infinity, which Python writes but other programs reject, and validated on reading."""

import functools
import json
import math
from typing import Any, TypeVar

Value = TypeVar("Value")


def to_json(value: Any, **options: Any) -> str:
    """Serialise a value; numbers that are not finite become null.

    Args:
        value: dictionaries, lists and plain values.
        options: options of `json.dumps`.
    """
    return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """Replace each number that is not finite in a nested structure of dictionaries and lists by None."""
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(content: bytes, kind: type[Value]) -> Value:
    """Parse and validate a record.

    Args:
        content: a JSON object.
        kind: the dataclass to parse into; its fields and those of nested dataclasses define the schema.

    Raises:
        ValueError: if the content does not match; says in one line where and why.
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
    # Imported late, because pydantic is slow to import and only needed for reading.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
