"""The forms that drawings come in: what the rest of the program asks of each, and one way to read them all.

A form is one file of this folder with a `FORM` in it; nothing else knows forms by name. Nothing vanishes (DESIGN
contract 8): all that a file holds comes out as a `Drawing` or as a `Reject`. What concerns a whole file is a
`DataError`, raised while the file is read.
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
"""Takes a file's location, what it is named after, the only word that its drawings may have (None takes any), and the
most points of a drawing; yields an outcome for each thing in it, in order."""


@dataclass(frozen=True, eq=False)
class Form:
    """A form of drawings.

    Attributes:
        what: a file of this form, in words.
        endings: of its files' names.
        begins: whether the first bytes of a file, unpacked, may be of this form.
        read: a file of it.
        is_named: whether a file holds drawings of nothing but the category that it is named after.
        of_folder: whether that category is the name of the file's folder. All the folder's files are then one source,
            given as "folder/*.ending", and are read where they lie.
        brings_origin: whether coordinates have an origin that means something (METHOD 1).
        public: of the public data set, the names of what comes in this form, with the folders of its files.
        reasons: why only drawings of this form are rejected, as `sgloc.sketch.rejects.REASONS` has them.
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
        """Compare a file's first bytes with what its ending promises.

        Raises:
            DataError: if they are of another form.
        """
        is_packed = location.endswith((".gz", ".svgz"))
        what = "a gzip file" if is_packed else self.what
        if head.startswith(_GZIP) if is_packed else self.begins(head):
            return
        if not head:
            raise DataError(f"{location} is empty, where {what} was expected; check the URL")
        looks_like = " an error page?" if is_text(head) else " another form?"
        raise DataError(f"{location} is not {what} but begins with {head[:24]!r}:{looks_like} Check the URL")


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are ASCII. A binary drawing's first byte may be any character, but within its
    first sixteen is a 0 or 1."""
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head[:16])


@functools.cache
def forms() -> tuple[Form, ...]:
    """All forms, in the order of their files' names."""
    package = importlib.import_module(__name__.rpartition(".")[0])
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]
    return tuple(module.FORM for module in modules if hasattr(module, "FORM"))


@functools.cache
def endings() -> tuple[str, ...]:
    """The endings of all forms."""
    return tuple(ending for form in forms() for ending in form.endings)


def form_of(location: str) -> Form | None:
    """The form that a file's ending promises, if any."""
    return next((form for form in forms() if location.endswith(form.endings)), None)


def refuse_ending(location: str, has: str = "does not end in") -> DataError:
    """What to raise for a file of no form, or for a folder that has none of any."""
    *others, last = endings()
    return DataError(f"{location} {has} {', '.join(others)} or {last}, the forms of drawings that are read")


def category_of_file(location: str) -> str:
    """What a file is named after: its folder, where its form says so; else its name without its ending, or QuickDraw's
    ".full.npz". In a URL, unquoted."""
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
    """Read a file of any form, told by its ending.

    Args:
        location: a local path or any fsspec URL.
        category: what the file is named after; None takes what `category_of_file` says.
        word: the only word that drawings may have; None takes any.
        max_points: the most points of a drawing, a raw one's counted when it is simplified.

    Yields:
        One Drawing or Reject a line, entry or record, in order. A Reject's reason is one of `rejects.REASONS`.

    Raises:
        DataError: if the ending is unknown, or a file whose form says that it is named after a category is not, or
            after another than `word`; while reading, as the form says.
    """
    form = form_of(location)
    if form is None:
        raise refuse_ending(location)
    category = category_of_file(location) if category is None else category
    if form.is_named and not (category and category.isprintable()):
        raise DataError(f"{location!r} is not named after a category; rename it to what its drawings show")
    if form.is_named and word not in (None, category):
        raise DataError(f"{location} holds drawings of {category!r}, where {word!r} is wanted; give another file")
    return finished(location, form.read(location, category, word, max_points))
