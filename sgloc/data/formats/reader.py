"""Reads QuickDraw drawings in any of their four forms (METHOD 1).

Nothing vanishes (DESIGN contract 8): each line of an ndjson file, entry of an npz file and record of a binary file
comes out as a `Drawing` or as a `Reject`. What concerns a whole file is a `DataError`, raised while the file is read.
"""

from collections.abc import Iterator

from sgloc.data.formats.binary import read_binary
from sgloc.data.formats.ndjson import read_ndjson
from sgloc.data.formats.npz import read_npz
from sgloc.data.formats.sources import category_of_file, ending_of, refuse_ending
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject

MAX_POINTS = 10_000


def read_drawings(
    location: str, *, category: str | None = None, word: str | None = None, max_points: int = MAX_POINTS
) -> Iterator[Drawing | Reject]:
    """Read a file of any form, told by its ending; see `read_ndjson`, `read_npz` and `read_binary`.

    Args:
        location: a local path or any fsspec URL.
        category: what an npz or binary file holds drawings of; None takes what it is named after.
        word: the only word that drawings may have; None takes any.
        max_points: the most points of a drawing, a raw one's counted when it is simplified.

    Yields:
        One Drawing or Reject a line, entry or record, in order. A Reject's reason is one of `rejects.REASONS`.

    Raises:
        DataError: if the ending is unknown, or an npz or binary file is not named after a category or after another
            than `word`; while reading, as the three say.
    """
    ending = ending_of(location)
    if not ending:
        raise refuse_ending(location)
    if ending.startswith(".ndjson"):
        return read_ndjson(location, word=word, max_points=max_points)
    category = category_of_file(location) if category is None else category
    if not category or not category.isprintable():
        raise DataError(f"{location!r} is not named after a category; rename it to what its drawings show")
    if word not in (None, category):
        raise DataError(f"{location} holds drawings of {category!r}, where {word!r} is wanted; give another file")
    read = read_npz if ending == ".npz" else read_binary
    return read(location, category, max_points=max_points)
