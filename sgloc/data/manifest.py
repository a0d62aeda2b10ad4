"""The shard manifest, manifest.json, which describes a folder of shards. Its presence marks the folder as complete."""

import dataclasses
import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError
from sgloc.sketch.drawing import MOST_OFFSET
from sgloc.storage import Retries, Storage, is_transient, reading
from sgloc.strict_json import from_json

FORMAT = "sgloc-shards"
VERSION = 2
FILE_NAME = "manifest.json"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Shard:
    """One tar file of a split.

    Attributes:
        path: path relative to the manifest's folder.
        num_sketches: number of sketches.
        num_bytes: file size.
        sha256: SHA-256 of the file, in hexadecimal.
        block_offsets: byte offset of each block in the file.
        block_sizes: size of each block, in bytes.
        block_checksums: CRC-32 of each block's bytes.
    """

    path: str
    num_sketches: int
    num_bytes: int
    sha256: str
    block_offsets: list[int]
    block_sizes: list[int]
    block_checksums: list[int]


@dataclass(frozen=True)
class Split:
    """The shards of train, valid or test, with their total counts.

    Attributes:
        categories: number of sketches by category.
        points: number of sketches by number of points.
        strokes: number of sketches by number of strokes.
        shards: the split's tar files.
    """

    categories: dict[str, int] = field(default_factory=dict)
    points: dict[int, int] = field(default_factory=dict)
    strokes: dict[int, int] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)

    @property
    def num_sketches(self) -> int:
        """Total number of sketches."""
        return sum(self.points.values())

    @property
    def num_points(self) -> int:
        """Total number of points."""
        return sum(length * count for length, count in self.points.items())

    @property
    def num_strokes(self) -> int:
        """Total number of strokes."""
        return sum(length * count for length, count in self.strokes.items())


@dataclass(frozen=True)
class Source:
    """A source file of the shards, with its `SourceFile.name` and how many of its drawings were taken or left out."""

    name: str
    num_accepted: int
    num_rejected: int
    num_skipped: int


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of all dx and dy of the training split, each clipped to +-1000 (METHOD 1).

    The numbers are exact integers, so that the moments of several builds can be added.
    """

    count: int = 0
    sum: int = 0
    sum_of_squares: int = 0

    @classmethod
    def of(cls, offsets: npt.NDArray[np.int16]) -> "Moments":
        """Compute the moments of offsets, int16 [P, 2]."""
        clipped = np.clip(offsets, -MOST_OFFSET, MOST_OFFSET).astype(np.int64)
        return cls(clipped.size, int(clipped.sum()), int(np.square(clipped).sum()))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.sum + other.sum, self.sum_of_squares + other.sum_of_squares)

    @property
    def standard_deviation(self) -> float:
        """Standard deviation; 0 if there are no offsets."""
        return math.sqrt(self.count * self.sum_of_squares - self.sum**2) / self.count if self.count else 0.0


@dataclass(frozen=True)
class Manifest:
    """Manifest of a folder of shards, or of one part of a build.

    Attributes:
        categories: category names, sorted; a sketch's category number indexes this list.
        scale: standard deviation of all clipped dx and dy of the training split (METHOD 1), in the source's units.
        moments: the moments from which `scale` is computed.
        longest_points: maximum number of points in a drawing.
        longest_strokes: maximum number of strokes in a drawing.
        sketches_per_block: number of sketches per block; the last block of a shard may have fewer.
        splits: the splits train, valid and test.
        num_read: number of drawings read: the sum of those in the splits, the rejected and the skipped.
        skipped: number of valid drawings left out by choice, by reason.
        rejected: number of rejected drawings, by reason; rejects.ndjson lists them individually.
        sources: the source files, in reading order.
        licence: licence of the drawings, with the attribution it requires.
        format: always "sgloc-shards".
        version: version of the format.
    """

    # Reject unknown fields.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    categories: list[str]
    scale: float
    moments: Moments
    longest_points: int
    longest_strokes: int
    sketches_per_block: int
    splits: dict[str, Split]
    num_read: int
    skipped: dict[str, int]
    rejected: dict[str, int]
    sources: list[Source]
    licence: str
    format: str = FORMAT
    version: int = VERSION

    @classmethod
    def of(cls, splits: dict[str, Split], moments: Moments, **others: Any) -> "Manifest":
        """Build a manifest, deriving its categories, scale and maximum lengths from the splits and moments."""
        return cls(
            categories=sorted(set().union(*(split.categories for split in splits.values()))),
            scale=moments.standard_deviation,
            moments=moments,
            longest_points=max(max(split.points, default=0) for split in splits.values()),
            longest_strokes=max(max(split.strokes, default=0) for split in splits.values()),
            splits=splits,
            **others,
        )

    @property
    def num_categories(self) -> int:
        """Number of categories."""
        return len(self.categories)

    @property
    def shards(self) -> list[Shard]:
        """The shards of all splits."""
        return [shard for split in self.splits.values() for shard in split.shards]

    @property
    def num_accepted(self) -> int:
        """Number of drawings in all splits."""
        return sum(split.num_sketches for split in self.splits.values())

    def to_json(self) -> str:
        """Serialise the manifest with one line per shard; equal manifests give equal text."""
        return _text(dataclasses.asdict(self)) + "\n"

    # Cached, because serialising the manifest of all 345 categories takes a second.
    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of the manifest, in hexadecimal: equal if and only if the same shards hold the same drawings."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _text(value: Any) -> str:
    """Format a value as JSON with each shard, and any other value no more deeply nested, on a single line."""
    if not isinstance(value, dict | list) or _depth(value) < 3:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(_text, value)) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_text(entry)}" for name, entry in value.items()) + "\n}"


def _depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def join_manifests(manifests: Sequence[Manifest]) -> Manifest:
    """Join the manifests of several builds, in the given order and with unchanged shard paths.

    Raises:
        DataError: if there are no manifests, their licences or block sizes differ, or two shards have the same path.
    """
    if not manifests:
        raise DataError("there is nothing to join; pass at least one manifest")
    for what in ("licence", "sketches_per_block"):
        found = sorted({str(getattr(manifest, what)) for manifest in manifests})
        if len(found) > 1:
            raise DataError(
                f"builds with different {what} cannot be joined: {' and '.join(found)}; rebuild one of them"
            )
    total = sum((manifest.moments for manifest in manifests), Moments())
    splits = {name: join_splits([manifest.splits[name] for manifest in manifests]) for name in SPLITS}
    paths = Counter(shard.path for split in splits.values() for shard in split.shards)
    for path, count in paths.items():
        if count > 1:
            raise DataError(f"{count} of the builds have a shard named {path}; make the folder or shard names unique")
    return Manifest.of(
        splits,
        total,
        sketches_per_block=manifests[0].sketches_per_block,
        num_read=sum(manifest.num_read for manifest in manifests),
        skipped=add_counts(manifest.skipped for manifest in manifests),
        rejected=add_counts(manifest.rejected for manifest in manifests),
        sources=[source for manifest in manifests for source in manifest.sources],
        licence=manifests[0].licence,
    )


def join_splits(splits: Sequence[Split]) -> Split:
    """Join several splits into one."""
    return Split(
        categories=add_counts(split.categories for split in splits),
        points=add_counts(split.points for split in splits),
        strokes=add_counts(split.strokes for split in splits),
        shards=[shard for split in splits for shard in split.shards],
    )


def add_counts(counts: Iterable[Mapping[Any, int] | Iterable[Any]]) -> dict[Any, int]:
    """Add up counts, sorted by key; each iterable that is not a mapping is counted first."""
    total: Counter[Any] = Counter()
    for some in counts:
        total.update(some)
    return dict(sorted(total.items()))


def parse_manifest(content: bytes, path: str) -> Manifest:
    """Parse the manifest of a folder or of a part.

    Args:
        content: content of the file.
        path: path of the file, for error messages.

    Raises:
        DataError: if the manifest is malformed or has a different format version.
    """
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a manifest ({error}); build the shards again") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise DataError(f"{path} is not a manifest of {FORMAT}; give a folder that `sgloc shard` wrote")
    if fields.get("version") != VERSION:
        raise DataError(
            f"{path} is of format version {fields.get('version')}, but this program reads version {VERSION}; "
            "build the shards again"
        )
    try:
        manifest = from_json(content, Manifest)
        _check(manifest)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} is malformed ({error}); build the shards again") from error
    return manifest


def _check(manifest: Manifest) -> None:
    """Raise ValueError unless the fields that readers rely on are consistent."""
    _require(math.isclose(manifest.scale, manifest.moments.standard_deviation), "scale contradicts the moments")
    _require(manifest.sketches_per_block > 0, "sketches_per_block is not positive")
    _require(set(manifest.splits) == set(SPLITS), f"the splits are not {', '.join(SPLITS)}")
    for name, split in manifest.splits.items():
        _require(set(split.categories) <= set(manifest.categories), f"{name} has categories that are not listed")
        for shard in split.shards:
            num_blocks = -(-shard.num_sketches // manifest.sketches_per_block)
            for numbers in (shard.block_offsets, shard.block_sizes, shard.block_checksums):
                _require(len(numbers) == num_blocks, f"{shard.path} has the wrong number of blocks")
            _require("/" not in shard.path and "\\" not in shard.path, f"{shard.path!r} is outside the folder")
        total = sum(shard.num_sketches for shard in split.shards)
        _require(split.num_sketches == total, f"the {name} shards do not add up to {split.num_sketches} drawings")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def load_manifest(folder: str, retries: Retries | None = None) -> Manifest:
    """Read the manifest of a folder or URL of shards.

    Args:
        folder: folder or URL of the shards.
        retries: retry policy for failed reads; None uses the default.

    Raises:
        DataError: if the manifest is missing or malformed, or has a different format version.
    """
    storage = Storage(folder, retries or Retries())
    path = f"{storage.location}/{FILE_NAME}"
    with reading(path, storage.retries):
        try:
            content = storage.content(FILE_NAME)
        except FileNotFoundError as error:
            if is_transient(error):
                raise
            raise DataError(f"{path} does not exist; give a folder that `sgloc shard` wrote") from error
    manifest = parse_manifest(content, path)
    if manifest.scale == 0:
        raise DataError(f"{path} is malformed (scale is 0); build the shards again")
    return manifest
