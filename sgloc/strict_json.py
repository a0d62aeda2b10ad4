"""JSON as the standard has it: without NaN and Infinity, which Python writes and other programs refuse."""

import json
import math
from typing import Any


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
