"""What a build will do: which source files make which part."""

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
    """What is taken of the drawings, and how it is packed: all that the bytes of shards depend on besides these.

    Raises:
        ConfigError: if a value cannot be.
        DataError: if categories are given, but none.
    """

    categories: Sequence[str] | None = None
    """Take drawings of these alone, comma-separated; default: all."""
    per_category: int = option(75_000, at_least=0)
    """Most drawings of a category, 1/30 of them for each of valid and test; 0: all. npz keep their own splits."""
    recognized_only: bool = False
    """Take only drawings that QuickDraw's game recognised."""
    compression: str = "none"
    """Of the blocks of a shard: none or zstd."""
    sketches_per_shard: int = option(16_384, at_least=1)
    """Most sketches in a shard; rounded down to whole blocks."""
    sketches_per_block: int = option(1024, at_least=1)
    """Sketches packed together; no more than a shard may have."""
    source_bytes_per_part: int = option(2**24, at_least=1)
    """Files are put together to a part, which one process builds, until they have as many bytes."""
    licence: str = QUICKDRAW_LICENCE
    """Of the drawings, with attribution; copied into the manifest. That of QuickDraw is not written for people's own
    drawings: it is then empty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.compression in COMPRESSIONS, "compression", " or ".join(COMPRESSIONS), repr(self.compression))
        if self.compression == "zstd" and importlib.util.find_spec("zstandard") is None:
            raise ConfigError("compression zstd takes the package zstandard; pip install zstandard")
        if self.categories is not None and not self.categories:
            raise DataError("no category was given; name at least one, or leave the option out to take all")

    @property
    def block_size(self) -> int:
        """Sketches in every block of a shard but its last."""
        return min(self.sketches_per_block, self.sketches_per_shard)


@dataclass(frozen=True)
class Plan:
    """A build, before a drawing is read.

    Attributes:
        options: what is taken of the drawings, and how it is packed.
        parts: the files of each part.
        num_bytes: their sizes, where known.
        file_categories: what all files are named after, those included that are not needed.
    """

    options: BuildOptions
    parts: list[list[SourceFile]]
    num_bytes: list[list[int | None]]
    file_categories: list[str]

    @property
    def digest(self) -> bytes:
        """Equal for equal plans, wherever the files lie."""
        names = [[source.name for source in part] for part in self.parts]
        text = json.dumps([VERSION, dataclasses.asdict(self.options), names, self.num_bytes])
        return hashlib.sha256(text.encode()).hexdigest().encode() + b"\n"


def make_plan(source: str | Sequence[str], options: BuildOptions, *, mirror: str = QUICKDRAW_URL) -> Plan:
    """Find the source files and group them into parts: all that are named after one category into the same.

    Args:
        source: as `find_sources` takes it.
        options: of the build.
        mirror: likewise.

    Raises:
        DataError: if a source does not exist, or a category cannot be in the files.
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
        # Of unknown size, a file is taken to be large.
        if sum(enough if size is None else size for size in num_bytes[-1]) >= enough:
            parts.append([])
            num_bytes.append([])
        for file in group:
            parts[-1].append(file)
            num_bytes[-1].append(_num_bytes(file))
    return Plan(options, parts, num_bytes, sorted({file.category for file in files}))


def _num_bytes(file: SourceFile) -> int | None:
    """The size of a file; None where its server does not say, or for the public data set would be asked too often."""
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
    """The files named after the wanted categories when each has one; else all, since a file may hold any word."""
    if categories is None:
        return files
    known = {file.category for file in files}
    if all(file.word is not None or file.form.is_named for file in files):
        refuse_missing_categories(set(categories) - known, known)
    return [file for file in files if file.category in categories] if known.issuperset(categories) else files


def refuse_missing_categories(missing: Iterable[str], known: set[str], why: str = "") -> None:
    """Raise a DataError that names the nearest known category, if any is missing, and ends in why it may be."""
    for name in sorted(missing):
        hint = nearest(name, sorted(known - {name}))
        raise DataError(f"no drawing of category {name!r} is in the source{hint}{why}")
