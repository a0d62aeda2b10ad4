"""Limits on the content and expansion of an SVG."""

from collections import Counter

MOST_POINTS = 20_000
# The limit of each quantity, and the message for a file that exceeds it.
LIMITS = {
    "element of the file": (200_000, "has more than {:,} elements; simplify it first"),
    "attribute": (500_000, "has more than {:,} attributes; simplify it first"),
    "character of attributes": (40 * 2**20, "expands to more than {:,} characters; save it again as plain SVG"),
    "rule": (20_000, "has more than {:,} style rules; save it again as plain SVG"),
    "element": (50_000, "draws more than {:,} elements, including copies; simplify it first"),
    "shape": (10_000, "draws more than {:,} shapes, including copies; simplify it first"),
    "character": (5_000_000, "has more than {:,} characters of paths, styles and transforms; simplify it first"),
    "transform": (100_000, "has more than {:,} transforms; simplify it first"),
    "arc": (40_000, "has more than {:,} arcs; simplify it first"),
    "curve": (100_000, "has more than {:,} points and curves; simplify it first"),
    "point of strokes": (MOST_POINTS, "has more than {:,} points and curves; simplify it first"),
}


class UnreadableError(Exception):
    """The reason why an SVG cannot be read; the message continues a sentence that starts with the file's name."""


class Limits:
    """Counter of the resources that reading one SVG takes."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, what: str, number: int = 1) -> None:
        """Count `number` units of `what`, a key of `LIMITS`, before processing them.

        Raises:
            UnreadableError: if the file exceeds the limit.
        """
        self._counts[what] += number
        most, sentence = LIMITS[what]
        if self._counts[what] > most:
            raise UnreadableError(sentence.format(most))
