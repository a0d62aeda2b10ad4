"""JSON that every program reads."""

import json

import pytest

from sgloc.strict_json import to_json


def test_null_stands_for_what_is_not_finite() -> None:
    value = {"loss": float("nan"), "rest": [float("inf"), (1.5, -float("inf"))], "name": "inf", "count": 3}
    text = to_json(value)
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found == {"loss": None, "rest": [None, [1.5, None]], "name": "inf", "count": 3}
