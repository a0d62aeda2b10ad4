"""How much of everything an SVG may hold or expand to."""

from collections import Counter

MOST_POINTS = 20_000
# The most of each, and the sentence for a file that has more.
LIMITS = {
    "element of the file": (200_000, "has more than {:,} elements; simplify it first"),
    "attribute": (500_000, "has more than {:,} attributes; simplify it first"),
    "character of attributes": (40 * 2**20, "expands to more than {:,} characters; save it anew as plain SVG"),
    "rule": (20_000, "has more than {:,} rules of style; save it anew as plain SVG"),
    "element": (50_000, "draws more than {:,} elements, copies counted; simplify it first"),
    "shape": (10_000, "draws more than {:,} shapes, copies counted; simplify it first"),
    "character": (5_000_000, "has more than {:,} characters of paths, styles and transforms; simplify it first"),
    "curve": (100_000, "has more than {:,} points and curves; simplify it first"),
    "point of strokes": (MOST_POINTS, "has more than {:,} points and curves; simplify it first"),
}


class UnreadableError(Exception):
    """Why an SVG cannot be read: the rest of a sentence that begins with the file's name."""


class Limits:
    """Counts what reading one SVG takes."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, what: str, number: int = 1) -> None:
        """Count what is about to be taken in, a key of `LIMITS`.

        Raises:
            UnreadableError: if the file has more of it than any drawing needs.
        """
        self._counts[what] += number
        most, sentence = LIMITS[what]
        if self._counts[what] > most:
            raise UnreadableError(sentence.format(most))
