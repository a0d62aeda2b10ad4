"""Resolution of drawing sources (paths, globs, URLs or the public data set) to files."""

import posixpath
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sgloc.data.formats.form import Form, category_of_file, endings, form_of, forms, refuse_ending
from sgloc.data.manifest import FILE_NAME
from sgloc.errors import DataError, nearest
from sgloc.storage import is_local, local_path, open_file_system, reading

# QuickDraw's categories, spelt as in its file names and its `word` field.
CATEGORIES = tuple(Path(__file__).with_name("categories.txt").read_text(encoding="utf-8").splitlines())
QUICKDRAW_URL = "https://storage.googleapis.com/quickdraw_dataset"
_PREFIX = "quickdraw:"
# Minimum similarity of a suggested format or category to the given name.
_ALIKE = 0.5


@dataclass(frozen=True)
class SourceFile:
    """A file of drawings.

    Attributes:
        location: absolute local path, or fsspec URL, quoted as its server expects. For formats with one drawing per
            file, "folder/*.ending" stands for all such files of a folder.
        category: category that the file is named after, as returned by `category_of_file`.
        word: the only word that its drawings may have; None accepts any.
    """

    location: str
    category: str
    word: str | None = None

    @property
    def form(self) -> Form:
        """The format that matches the file's ending."""
        form = form_of(self.location)
        assert form is not None, self.location
        return form

    @property
    def name(self) -> str:
        """The file's name without its path, the same for local and remote files; it includes the name of the folder if
        that is the category."""
        name = "/".join(self.location.split("/")[-2 if self.form.of_folder else -1 :])
        return urllib.parse.unquote(name) if "://" in self.location else name


def find_sources(
    source: str | Sequence[str], categories: Sequence[str] | None = None, *, mirror: str = QUICKDRAW_URL
) -> list[SourceFile]:
    """Find the files of a source.

    A source is a file, a folder or a glob, each a local path or an fsspec URL, or a format of the public data set:
    quickdraw:npz, quickdraw:simplified, quickdraw:raw or quickdraw:binary. A folder contributes its files that are
    named after categories; if it has none, its single-drawing files and those of its subfolders. The public data
    set's files are listed without checking that they exist.

    Args:
        source: one or several sources.
        categories: restricts the public data set to these categories; None takes all. Other sources are not
            restricted.
        mirror: folder or URL of the public data set.

    Returns:
        The files without duplicates, sorted by category and then location, so that the order of the categories does
        not depend on the format.

    Raises:
        DataError: if a path does not exist or cannot be listed, a file's ending is unknown, a file's name is not UTF-8,
            nothing is found, or the public data set has no such format or category.
    """
    items = [source] if isinstance(source, str) else source
    if not items or not all(items):
        raise DataError(f"no source of drawings was given; name a file or folder of {', '.join(endings())}")
    found: dict[str, SourceFile] = {}
    for item in items:
        if item.startswith(_PREFIX):
            found |= {file.location: file for file in _public_files(item, categories, mirror)}
        else:
            for path in _expand(item):
                _refuse_name(path)
                found.setdefault(path, SourceFile(path, category_of_file(path)))
    return sorted(found.values(), key=lambda file: (file.category, file.location))


def _public_files(item: str, categories: Sequence[str] | None, mirror: str) -> list[SourceFile]:
    """List the files of one format of the public data set."""
    public = {name: (folder, form.endings[0]) for form in forms() for name, folder in form.public.items()}
    form = item.removeprefix(_PREFIX)
    if form not in public:
        hint = nearest(form, public, cutoff=_ALIKE)
        raise DataError(f"{item} is not a format of the public data set; its formats are {', '.join(public)}{hint}")
    names = CATEGORIES if categories is None else categories
    if not names:
        raise DataError("no category was given; name at least one, or omit the option to take all")
    for name in names:
        if name not in CATEGORIES:
            raise DataError(f"QuickDraw has no category {name!r}{nearest(name, CATEGORIES, cutoff=_ALIKE)}")
    folder, ending = public[form]
    scheme = mirror.partition("://")[0] if "://" in mirror else "file"
    if scheme in ("file", "local"):
        mirror = local_path(mirror)
    is_quoted = scheme in ("http", "https")
    return [
        SourceFile(
            f"{mirror.rstrip('/')}/{folder}/{urllib.parse.quote(name) if is_quoted else name}{ending}", name, name
        )
        for name in names
    ]


def _refuse_name(path: str) -> None:
    """Refuse a name that is not UTF-8, because it becomes a category and is written to the build plan."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(f"{path!a} has a name that is not UTF-8; rename the file or its folder") from None


def _refuse_shards(folder: str, paths: Sequence[str]) -> None:
    """Refuse a folder written by `sgloc shard`, whose rejects.ndjson has the ending of a drawing format."""
    names = [posixpath.basename(path) for path in paths]
    if FILE_NAME in names and any(name.endswith(".tar") for name in names):
        raise DataError(f"{folder} already holds shards; use them, or pass the drawings that they were built from")


def _expand(item: str) -> list[str]:
    """Find the files of one file path, folder or glob."""
    with reading(item):
        file_system, path = open_file_system(item)
        # An existing path is taken literally, even if its name contains glob characters. Test for a known ending first,
        # because isdir may download a large remote file to see whether it is a directory listing.
        if item.endswith(endings()) and file_system.exists(path):
            return [path if is_local(item) else item]
        if file_system.isdir(path):
            paths, kind = _in_folder(item), "no file"
        elif any(character in item for character in "*?["):
            found, kind = file_system.glob(path), "no match"
            _refuse_shards(item, found)
            paths = [entry for entry in found if entry.endswith(endings())]
        elif file_system.exists(path):
            raise refuse_ending(item)
        else:
            raise DataError(f"{item} does not exist; check the path")
        if not paths:
            raise refuse_ending(item, f"has {kind} that ends in")
        return paths if is_local(item) else list(map(file_system.unstrip_protocol, paths))


def _in_folder(location: str) -> list[str]:
    """Find the files of a folder that are named after categories.

    If there are none, find the single-drawing files of the folder and its subfolders instead: one source,
    "folder/*.ending", per folder and ending.
    """
    file_system, root = open_file_system(location)
    entries = file_system.ls(root, detail=True)
    names = [entry["name"] for entry in entries]
    _refuse_shards(location, names)
    if named := [name for name in names if (form := form_of(name)) is not None and not form.of_folder]:
        return named
    of_drawings = [ending for form in forms() if form.of_folder for ending in form.endings]
    inside = {root.rstrip("/"): names}
    for entry in entries:
        # The type of a symbolic link is neither "file" nor "directory".
        if entry["type"] == "directory" or (entry["type"] != "file" and file_system.isdir(entry["name"])):
            inside[entry["name"].rstrip("/")] = file_system.ls(entry["name"], detail=False)
    for folder, files in inside.items():
        _refuse_shards(folder, files)
    return [
        f"{folder}/*{ending}"
        for folder, files in inside.items()
        for ending in of_drawings
        if any(name.endswith(ending) for name in files)
    ]
