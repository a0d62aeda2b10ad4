"""Reasons for rejecting drawings, by which rejects are counted (DESIGN contract 8)."""

import reprlib
from typing import Any

MAX_DETAIL = 300
_MAX_SHOWN = 160
_REPR = reprlib.Repr()
_REPR.maxlevel = 3

# Reasons that apply to a single file format are defined with that format.
REASONS: dict[str, str] = {
    "bad_key_id": "key_id is not an integer from 0 to 2**64 - 1",
    "bad_recognized": "recognized is not true or false; binary: not 1 or 0",
    "bad_word": "word is not printable text of at most 128 characters",
    "blank_line": "a line of white space only",
    "empty_drawing": "no stroke, or no row",
    "empty_stroke": "a stroke without a point",
    "line_too_long": "a line longer than any drawing needs",
    "malformed_json": "a line or array entry that is not a JSON object; NaN, infinities and lone surrogates are not "
    "valid JSON",
    "missing_field": "no drawing, or only one of word and key_id",
    "not_a_number": "a coordinate that is not a number",
    "not_finite": "a coordinate, or the width or height of a raw drawing, that is infinite or NaN",
    "not_utf8": "a line that is not valid UTF-8",
    "out_of_range": "simplified: an integer coordinate outside 0 to 255",
    "too_many_points": "more points than the limit",
    "unequal_lengths": "a stroke whose lists of xs, ys and times differ in length",
    "wrong_shape": "not a list of strokes, each of two lists (simplified) or three (raw); npz: not an array [N, 3]",
    "wrong_word": "a word other than the one expected in the file",
}


class UnfitError(Exception):
    """The reason for rejecting a drawing.

    Args:
        reason: a key of `REASONS`.
        detail: what was found; truncated to MAX_DETAIL characters.
    """

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        self.reason, self.detail = reason, _cut(detail, MAX_DETAIL)
        super().__init__(reason, self.detail)


def shown(value: Any) -> str:
    """Abbreviate the repr of a value of any size and depth to at most 160 characters, for use in messages."""
    return _cut(_REPR.repr(value), _MAX_SHOWN)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
