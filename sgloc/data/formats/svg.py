"""Reader of people's own drawings: SVG or JSON files in one folder per category, as in TU-Berlin and Sketchy."""

import posixpath
from collections.abc import Iterator

from sgloc.data.formats.form import Form
from sgloc.data.formats.rows import ByteDrawing, Outcome, derived_key, simplified
from sgloc.errors import DataError
from sgloc.sketch.rejects import UnfitError
from sgloc.storage import Storage, is_transient, reading


def read_folder(location: str, category: str, max_points: int) -> Iterator[Outcome]:
    """Read SVG and JSON files with `sgloc.sketch.reading.read_own_file` and simplify their drawings.

    A drawing's key_id is derived from its category, its name and its strokes, so that it does not depend on the file's
    location.

    Args:
        location: path or URL of a file, or "folder/*.ending" for all such files of a folder, sorted by name.
        category: category of every drawing.
        max_points: maximum number of points in a drawing.

    Yields:
        One outcome per drawing, and one per kind of element that was left out of a file. Its place is the file's name.

    Raises:
        DataError: if the folder cannot be listed, or its storage cannot be reached.
    """
    wanted = posixpath.basename(location)
    folder = location.removesuffix(wanted)
    for name in _names(folder, wanted):
        for outcome in _read_file(f"{folder}{name}", category, max_points):
            yield name, outcome


def _names(folder: str, wanted: str) -> list[str]:
    if not wanted.startswith("*"):
        return [wanted]
    with reading(folder):
        return sorted(name for name in Storage(folder).sizes() if name.endswith(wanted[1:]))


def _read_file(location: str, category: str, max_points: int) -> Iterator[ByteDrawing | UnfitError]:
    # Imported late, so that workers that build from other formats do not load the SVG reader.
    from sgloc.sketch.reading import read_own_file

    try:
        found = read_own_file(location)
    except DataError as error:
        if error.__cause__ is not None and is_transient(error.__cause__):
            raise
        yield UnfitError("unreadable", str(error))
        return
    for note in found.notes:
        yield UnfitError("left_out", note)
    for title, strokes in found.drawings:
        try:
            simple = simplified(strokes, max_points)
        except UnfitError as error:
            yield error
        else:
            key_id = derived_key(f"{category}/{title}/".encode() + simple.xs + simple.ys)
            yield ByteDrawing(category, key_id, True, simple)


FORM = Form(
    what="a drawing in SVG or JSON",
    endings=(".svg", ".svgz", ".svg.gz", ".json", ".json.gz"),
    begins=lambda head: head.lstrip()[:1] in (b"<", b"{", b"["),
    read=lambda location, category, _, max_points: read_folder(location, category, max_points),
    is_named=True,
    of_folder=True,
    reasons={
        "left_out": "SVG: content other than strokes, such as text, images or fills; each kind counts as one drawing",
        "unreadable": "SVG, JSON: a file that cannot be read as a drawing",
    },
)
