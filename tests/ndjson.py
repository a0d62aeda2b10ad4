"""Helpers that make lines of ndjson files and read them back."""

import json
from pathlib import Path
from typing import Any

from sgloc.data.formats.form import read_drawings
from sgloc.sketch.drawing import Drawing, Reject

STROKES = [[[0, 10, 10], [0, 0, 255]], [[7], [9]]]
STROKE3 = [[0, 0, 0], [10, 0, 0], [0, 255, 1], [-3, -246, 1]]


def record(**changes: Any) -> dict[str, Any]:
    return {"word": "cat", "key_id": "4525909186969600", "recognized": False, "drawing": STROKES} | changes


def line(**changes: Any) -> bytes:
    return json.dumps(record(**changes)).encode() + b"\n"


def read_bytes(folder: Path, data: bytes, name: str = "cat.ndjson") -> list[Drawing | Reject]:
    path = folder / name
    path.write_bytes(data)
    return list(read_drawings(str(path)))


def drawings_of(outcomes: list[Drawing | Reject]) -> list[Drawing]:
    assert all(isinstance(outcome, Drawing) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Drawing)]


def only_reject(outcomes: list[Drawing | Reject]) -> Reject:
    (outcome,) = outcomes
    assert isinstance(outcome, Reject)
    return outcome
