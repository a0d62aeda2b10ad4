"""The interface of drawing file formats, and one entry point that reads them all.

A format is one module of this folder that defines `FORM`; no other code refers to a specific format. Nothing is dropped
silently (DESIGN contract 8): each entry of a file becomes a `Drawing` or a `Reject`. An error that concerns the whole
file is raised as a `DataError` while the file is read.
"""

import functools
import importlib
import pkgutil
import posixpath
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sgloc.data.formats.rows import Outcome, finished
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.sketch.rejects import REASONS

MAX_POINTS = 10_000
_GZIP = b"\x1f\x8b"

Read = Callable[[str, str, str | None, int], Iterator[Outcome]]
"""Takes a file's location, its category, the only word that its drawings may have (None accepts any) and the maximum
number of points in a drawing; yields one outcome per entry, in order."""


@dataclass(frozen=True, eq=False)
class Form:
    """A drawing file format.

    Attributes:
        what: noun phrase for a file in this format, for messages.
        endings: file name endings.
        begins: takes the first bytes of a decompressed file; returns whether they can belong to this format.
        read: reader of a file.
        is_named: whether a file holds only drawings of the category that it is named after.
        of_folder: whether the category is the name of the file's folder instead. All files of a folder then form one
            source, written "folder/*.ending", and are read in place rather than downloaded.
        brings_origin: whether the coordinates have a meaningful origin (METHOD 1).
        public: the parts of the public data set in this format: from name, as in "quickdraw:name", to folder.
        reasons: reject reasons specific to this format, in the form of `sgloc.sketch.rejects.REASONS`.
    """

    what: str
    endings: tuple[str, ...]
    begins: Callable[[bytes], bool]
    read: Read
    is_named: bool = False
    of_folder: bool = False
    brings_origin: bool = False
    public: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        REASONS.update(self.reasons)

    def check(self, head: bytes, location: str) -> None:
        """Check that a file's first bytes match its ending.

        Raises:
            DataError: if they do not.
        """
        is_packed = location.endswith((".gz", ".svgz"))
        what = "a gzip file" if is_packed else self.what
        if head.startswith(_GZIP) if is_packed else self.begins(head):
            return
        if not head:
            raise DataError(f"{location} is empty but should be {what}; check the URL")
        looks_like = "an error page" if is_text(head) else "another format"
        raise DataError(
            f"{location} is not {what} but begins with {head[:24]!r} (probably {looks_like}); check the URL"
        )


def is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file are ASCII text.

    Sixteen bytes suffice to tell text from QuickDraw's binary format, which may start with any byte but has a 0 or 1
    among its first sixteen.
    """
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head[:16])


@functools.cache
def forms() -> tuple[Form, ...]:
    """Return all formats, sorted by module name."""
    package = importlib.import_module(__name__.rpartition(".")[0])
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]
    return tuple(module.FORM for module in modules if hasattr(module, "FORM"))


@functools.cache
def endings() -> tuple[str, ...]:
    """Return the file name endings of all formats."""
    return tuple(ending for form in forms() for ending in form.endings)


def form_of(location: str) -> Form | None:
    """Return the format that matches a file's ending, or None."""
    return next((form for form in forms() if location.endswith(form.endings)), None)


def refuse_ending(location: str, has: str = "does not end in") -> DataError:
    """Return the error for a file with an unknown ending, or for a folder without files of a known format."""
    *others, last = endings()
    return DataError(f"{location} {has} {', '.join(others)} or {last}, the supported drawing formats")


def category_of_file(location: str) -> str:
    """Return the category that a file is named after.

    This is the folder's name if the format says so, else the file's name without its ending or QuickDraw's ".full.npz".
    Names in URLs are unquoted.
    """
    folder, name = posixpath.split(location)
    form = form_of(location)
    if form is not None and form.of_folder:
        name = posixpath.basename(folder)
    elif form is not None:
        name = name.removesuffix(next(ending for ending in form.endings if name.endswith(ending))).removesuffix(".full")
    return urllib.parse.unquote(name) if "://" in location else name


def read_drawings(
    location: str, *, category: str | None = None, word: str | None = None, max_points: int = MAX_POINTS
) -> Iterator[Drawing | Reject]:
    """Read a file of drawings, choosing the format by its ending.

    Args:
        location: local path or fsspec URL.
        category: category that the file is named after; None calls `category_of_file`.
        word: the only word that drawings may have; None accepts any.
        max_points: maximum number of points in a drawing; for raw drawings, after simplification.

    Yields:
        One Drawing or Reject per line, entry or record, in order. A Reject's reason is one of `rejects.REASONS`.

    Raises:
        DataError: if the ending is unknown; if the format requires a file named after a category, and the file is not,
            or is named after a category other than `word`; or while reading, as the format's reader documents.
    """
    form = form_of(location)
    if form is None:
        raise refuse_ending(location)
    category = category_of_file(location) if category is None else category
    if form.is_named and not (category and category.isprintable()):
        raise DataError(f"{location!r} is not named after a category; rename it to the category of its drawings")
    if form.is_named and word not in (None, category):
        raise DataError(f"{location} holds drawings of {category!r} instead of {word!r}; choose another file")
    return finished(location, form.read(location, category, word, max_points))
