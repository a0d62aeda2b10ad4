"""Why drawings are not taken: the reasons by which they are counted (DESIGN contract 8)."""

import reprlib
from typing import Any

MAX_DETAIL = 300
_MAX_SHOWN = 160
_REPR = reprlib.Repr()
_REPR.maxlevel = 3

# Those that concern one form of files only are with the form.
REASONS: dict[str, str] = {
    "bad_key_id": "its key_id is not a whole number from 0 to 2**64 - 1",
    "bad_recognized": "recognized is not true or false; binary: not 1 or 0",
    "bad_word": "its word is not printable text of up to 128 characters",
    "blank_line": "a line of nothing but white space",
    "empty_drawing": "no stroke, or no row",
    "empty_stroke": "a stroke without a point",
    "line_too_long": "a line longer than any drawing needs",
    "malformed_json": "a line, or an entry of an array, that is not a JSON object; NaN, infinities and lone surrogates "
    "are not JSON",
    "missing_field": "no drawing, or only one of word and key_id",
    "not_a_number": "a coordinate that is not a number",
    "not_finite": "a coordinate, or a raw drawing's width or height, that is infinite or NaN",
    "not_utf8": "a line that is not UTF-8",
    "out_of_range": "simplified: a whole coordinate outside 0 to 255",
    "too_many_points": "more points than are taken",
    "unequal_lengths": "a stroke whose xs, ys and times are not as many",
    "wrong_shape": "not a list of strokes, each two lists (simplified) or three (raw); npz: not an array [N, 3]",
    "wrong_word": "a word other than the one that the file may hold",
}


class UnfitError(Exception):
    """Why a drawing is not taken.

    Args:
        reason: a key of `REASONS`.
        detail: what was found; cut to MAX_DETAIL characters.
    """

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        self.reason, self.detail = reason, _cut(detail, MAX_DETAIL)
        super().__init__(reason, self.detail)


def shown(value: Any) -> str:
    """Show a value of any size and depth in at most 160 characters, so that a sentence can hold it."""
    return _cut(_REPR.repr(value), _MAX_SHOWN)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
