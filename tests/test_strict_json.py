"""Strict JSON: no NaN or infinity, and records validated against their types."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from sgloc.strict_json import from_json, to_json


def test_null_stands_for_what_is_not_finite() -> None:
    value = {"loss": float("nan"), "rest": [float("inf"), (1.5, -float("inf"))], "name": "inf", "count": 3}
    text = to_json(value)
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not valid JSON"))
    assert found == {"loss": None, "rest": [None, [1.5, None]], "name": "inf", "count": 3}


@dataclass(frozen=True)
class Inner:
    """A nested record."""

    name: str
    sizes: list[int]


@dataclass(frozen=True)
class Outer:
    """A record with every kind of field."""

    scale: float
    counts: dict[int, int]
    inner: dict[str, Inner]


RECORD: dict[str, Any] = {"scale": 1, "counts": {"3": 4}, "inner": {"one": {"name": "a", "sizes": [1, 2]}}}


def test_a_record_is_read_as_its_types_say() -> None:
    found = from_json(json.dumps(RECORD).encode(), Outer)
    assert found == Outer(1.0, {3: 4}, {"one": Inner("a", [1, 2])})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scale": "1"}, "^scale: .* number"),
        ({"counts": {"many": 4}}, "^counts.many.*: .* integer"),
        ({"counts": {"3": True}}, "^counts.3: .* integer"),
        ({"inner": {"one": {"name": "a", "sizes": [1, "2"]}}}, "^inner.one.sizes.1: .* integer"),
        ({"inner": {"one": 3}}, "^inner.one: "),
        ({"inner": {"one": {"name": "a"}}}, "^inner.one.sizes: "),
    ],
    ids=["text", "key", "truth", "nested", "number", "missing"],
)
def test_what_is_no_such_record_is_told_in_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        from_json(json.dumps({**RECORD, **change}).encode(), Outer)
    assert len(str(raised.value).splitlines()) == 1
