"""The build plan: options, and the assignment of source files to parts."""

import dataclasses
import hashlib
import importlib.util
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sgloc.config import Options, option, require
from sgloc.data.block import COMPRESSIONS
from sgloc.data.formats.sources import QUICKDRAW_URL, SourceFile, find_sources
from sgloc.data.manifest import VERSION
from sgloc.errors import ConfigError, DataError, nearest
from sgloc.storage import Retries, Storage, open_file_system, reading, retry_reading

QUICKDRAW_LICENCE = (
    "CC BY 4.0; The Quick, Draw! Dataset by Google, https://github.com/googlecreativelab/quickdraw-dataset"
)


@dataclass(frozen=True)
class BuildOptions(Options):
    """Selection and packing of drawings.

    Together with the drawings, these options determine the bytes of the shards.

    Raises:
        ConfigError: if a value is invalid.
        DataError: if `categories` is an empty list.
    """

    categories: Sequence[str] | None = None
    """Take only drawings of these comma-separated categories; by default all."""
    per_category: int = option(75_000, at_least=0)
    """Maximum number of drawings per category, of which 1/30 each go to valid and test; 0 takes all. npz files keep
    their own splits."""
    recognized_only: bool = False
    """Take only drawings that QuickDraw's game recognised."""
    compression: str = "none"
    """Compression of the blocks: none or zstd."""
    sketches_per_shard: int = option(16_384, at_least=1)
    """Maximum number of sketches per shard, rounded down to full blocks."""
    sketches_per_block: int = option(1024, at_least=1)
    """Number of sketches per block, at most that of a shard."""
    source_bytes_per_part: int = option(2**24, at_least=1)
    """Size in bytes at which a group of source files is closed as one part; each part is built by one process."""
    licence: str = QUICKDRAW_LICENCE
    """Licence of the drawings, with attribution, copied into the manifest. If all drawings are people's own SVG or JSON
    files, QuickDraw's licence is replaced by an empty one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.compression in COMPRESSIONS, "compression", " or ".join(COMPRESSIONS), repr(self.compression))
        if self.compression == "zstd" and importlib.util.find_spec("zstandard") is None:
            raise ConfigError("compression zstd needs the package zstandard; pip install zstandard")
        if self.categories is not None and not self.categories:
            raise DataError("no category was given; name at least one, or omit the option to take all")

    @property
    def block_size(self) -> int:
        """Number of sketches per block; the last block of a shard may have fewer."""
        return min(self.sketches_per_block, self.sketches_per_shard)


@dataclass(frozen=True)
class Plan:
    """A build, planned before any drawing is read.

    Attributes:
        options: build options.
        parts: source files of each part.
        num_bytes: size of each of these files; None if unknown.
        file_categories: categories that all source files are named after, including the files not in any part.
    """

    options: BuildOptions
    parts: list[list[SourceFile]]
    num_bytes: list[list[int | None]]
    file_categories: list[str]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the plan, as a line of hexadecimal text; it does not depend on the location of the files."""
        names = [[source.name for source in part] for part in self.parts]
        text = json.dumps([VERSION, dataclasses.asdict(self.options), names, self.num_bytes])
        return hashlib.sha256(text.encode()).hexdigest().encode() + b"\n"


def make_plan(source: str | Sequence[str], options: BuildOptions, *, mirror: str = QUICKDRAW_URL) -> Plan:
    """Find the source files and group them into parts, keeping all files of a category in the same part.

    Args:
        source: one or several sources, as in `find_sources`.
        options: build options.
        mirror: folder or URL of the public data set.

    Raises:
        DataError: if a source does not exist, or a requested category cannot occur in the files.
    """
    files = find_sources(source, options.categories, mirror=mirror)
    if options.categories is not None:
        options = dataclasses.replace(options, categories=sorted(set(options.categories)))
    chosen = _wanted_files(files, options.categories)
    if options.licence == QUICKDRAW_LICENCE and all(file.form.of_folder for file in chosen):
        options = dataclasses.replace(options, licence="")
    enough = options.source_bytes_per_part
    parts: list[list[SourceFile]] = [[]]
    num_bytes: list[list[int | None]] = [[]]
    for _, group in itertools.groupby(chosen, key=lambda file: file.category):
        # A file of unknown size counts as large.
        if sum(enough if size is None else size for size in num_bytes[-1]) >= enough:
            parts.append([])
            num_bytes.append([])
        for file in group:
            parts[-1].append(file)
            num_bytes[-1].append(_num_bytes(file))
    return Plan(options, parts, num_bytes, sorted({file.category for file in files}))


def _num_bytes(file: SourceFile) -> int | None:
    """Return the size of a file, or None if the server does not report it.

    Also None for the files of the public data set, to avoid a request for each of them.
    """
    if file.word is not None:
        return None
    retries, location = Retries(), file.location
    folder, _, name = location.rpartition("/")
    if name.startswith("*"):
        with reading(folder, retries):
            sizes = Storage(folder, retries).sizes()
        return sum(size for found, size in sizes.items() if found.endswith(name[1:]))
    file_system, path = open_file_system(location, retries.timeout)
    size = retry_reading(lambda: file_system.size(path), location, retries)
    return None if size is None else int(size)


def _wanted_files(files: list[SourceFile], categories: Sequence[str] | None) -> list[SourceFile]:
    """Return the files named after the wanted categories.

    If some category has no such file, return all files, since a file may hold drawings of any category.

    Raises:
        DataError: if a category has no file, and no file may hold drawings of a category other than its own.
    """
    if categories is None:
        return files
    known = {file.category for file in files}
    if all(file.word is not None or file.form.is_named for file in files):
        refuse_missing_categories(set(categories) - known, known)
    return [file for file in files if file.category in categories] if known.issuperset(categories) else files


def refuse_missing_categories(missing: Iterable[str], known: set[str], why: str = "") -> None:
    """Raise a DataError if a category is missing, suggesting the nearest known one; `why` ends the message."""
    for name in sorted(missing):
        hint = nearest(name, sorted(known - {name}))
        raise DataError(f"the source has no drawing of category {name!r}{hint}{why}")
