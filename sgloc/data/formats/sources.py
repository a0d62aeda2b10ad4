"""Which files a source of drawings stands for: paths, globs, URLs, or the public data set."""

import difflib
import posixpath
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import fsspec
from fsspec.implementations.local import LocalFileSystem

from sgloc.data.formats.categories import CATEGORIES
from sgloc.data.formats.files import reading
from sgloc.data.manifest import FILE_NAME
from sgloc.errors import DataError

ENDINGS = (".ndjson", ".ndjson.gz", ".npz", ".bin", ".bin.gz")
QUICKDRAW_URL = "https://storage.googleapis.com/quickdraw_dataset"
_PREFIX = "quickdraw:"
# Of each form, the folder of its files below the public data set's address, and their ending.
_FORMS = {
    "npz": ("sketchrnn", ".npz"),
    "simplified": ("full/simplified", ".ndjson"),
    "raw": ("full/raw", ".ndjson"),
    "binary": ("full/binary", ".bin"),
}


@dataclass(frozen=True)
class SourceFile:
    """A file of drawings.

    Attributes:
        location: an absolute local path, or an fsspec URL, quoted as its server wants it.
        category: what the file is named after, as `category_of_file` has it.
        word: the only word that its drawings may have; None where any will do.
    """

    location: str
    category: str
    word: str | None = None


def find_sources(
    source: str | Sequence[str], categories: Sequence[str] | None = None, *, mirror: str = QUICKDRAW_URL
) -> list[SourceFile]:
    """Find the files that a source stands for.

    Args:
        source: a file, a folder (its files of the known endings, not those of its subfolders) or a glob, local or any
            fsspec URL; or quickdraw:npz, quickdraw:simplified, quickdraw:raw or quickdraw:binary, a form of the public
            data set, whose files are named without looking whether they are there; or several of them.
        categories: of the public data set, only these; None takes all. Of other sources all files are found.
        mirror: the folder or URL below which the public data set lies.

    Returns:
        The files, each once, sorted by category and then location, so that all forms have the categories in one order.

    Raises:
        DataError: if a path does not exist or cannot be listed, a file's ending is unknown, a file's name is not UTF-8,
            nothing is found, or the public data set has no such form or category.
    """
    items = [source] if isinstance(source, str) else source
    if not items or not all(items):
        raise DataError(f"no source of drawings was given; name a file or folder of {_endings()}")
    found: dict[str, SourceFile] = {}
    for item in items:
        if item.startswith(_PREFIX):
            found |= {file.location: file for file in _public_files(item, categories, mirror)}
        else:
            for path in _expand(item):
                _refuse_name(path)
                found.setdefault(path, SourceFile(path, category_of_file(path)))
    return sorted(found.values(), key=lambda file: (file.category, file.location))


def category_of_file(location: str) -> str:
    """What a file is named after: its name without its ending, or QuickDraw's ".full.npz"; in a URL, unquoted."""
    name = posixpath.basename(location)
    name = name.removesuffix(ending_of(name)).removesuffix(".full")
    return urllib.parse.unquote(name) if "://" in location else name


def ending_of(location: str) -> str:
    """The one of `ENDINGS` that a file has, or an empty string."""
    return next((ending for ending in ENDINGS if location.endswith(ending)), "")


def refuse_ending(location: str) -> DataError:
    """What to raise for a file that has none of `ENDINGS`."""
    return DataError(f"{location} does not end in {_endings()}, the forms of drawings that are read")


def _endings() -> str:
    return f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _public_files(item: str, categories: Sequence[str] | None, mirror: str) -> list[SourceFile]:
    """Name the files of a form of the public data set."""
    form = item.removeprefix(_PREFIX)
    if form not in _FORMS:
        raise DataError(
            f"{item} is no form of the public data set, which are {', '.join(_FORMS)}{_nearest(form, _FORMS)}"
        )
    names = CATEGORIES if categories is None else categories
    if not names:
        raise DataError("no category was given; name at least one, or leave the option out to take all")
    for name in names:
        if name not in CATEGORIES:
            raise DataError(f"QuickDraw has no category {name!r}{_nearest(name, CATEGORIES)}")
    folder, ending = _FORMS[form]
    scheme = mirror.partition("://")[0] if "://" in mirror else "file"
    if scheme in ("file", "local"):
        _, mirror = fsspec.core.url_to_fs(mirror)
    is_quoted = scheme in ("http", "https")
    return [
        SourceFile(
            f"{mirror.rstrip('/')}/{folder}/{urllib.parse.quote(name) if is_quoted else name}{ending}", name, name
        )
        for name in names
    ]


def _refuse_name(path: str) -> None:
    """Refuse a name that is not UTF-8: it becomes a category, and stands in the plan of a build."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(f"{path!a} has a name that is not UTF-8; rename the file, or its folder") from None


def _refuse_shards(folder: str, paths: Sequence[str]) -> None:
    """Refuse what `sgloc shard` wrote: its rejects.ndjson has an ending of drawings."""
    names = [posixpath.basename(path) for path in paths]
    if FILE_NAME in names and any(name.endswith(".tar") for name in names):
        raise DataError(
            f"{folder} holds shards already; give the drawings that they were built from, or use the shards"
        )


def _expand(item: str) -> list[str]:
    """Find the files of one path, folder or glob."""
    with reading(item):
        file_system, path = fsspec.core.url_to_fs(item)
        # What exists stands for itself, even with a glob's brackets in its name. A known ending is tried first, lest a
        # large file behind a URL be fetched to see whether it is a listing.
        if item.endswith(ENDINGS) and file_system.exists(path):
            return [path if isinstance(file_system, LocalFileSystem) else item]
        if file_system.isdir(path):
            found, kind = file_system.ls(path, detail=False), "no file"
        elif any(character in item for character in "*?["):
            found, kind = file_system.glob(path), "no match"
        elif file_system.exists(path):
            raise refuse_ending(item)
        else:
            raise DataError(f"{item} does not exist; check the path")
        _refuse_shards(item, found)
        paths = [entry for entry in found if entry.endswith(ENDINGS)]
        if not paths:
            raise DataError(f"{item} has {kind} that ends in {_endings()}, the forms of drawings that are read")
        return paths if isinstance(file_system, LocalFileSystem) else list(map(file_system.unstrip_protocol, paths))
