"""manifest.json: what a folder of shards holds. The folder is complete when it is there."""

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
    """One tar file.

    Attributes:
        path: relative to the manifest's folder.
        num_sketches: sketches in it.
        num_bytes: its size.
        sha256: its checksum, in hexadecimal.
        block_offsets: where in the file each block begins, in bytes.
        block_sizes: how long each block is, in bytes.
        block_checksums: the CRC-32 of each block's bytes.
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
    """The shards of train, valid or test, with what they hold in all.

    Attributes:
        categories: sketches of each category that occurs.
        points: sketches of each number of points that occurs.
        strokes: sketches of each number of strokes that occurs.
        shards: its tar files.
    """

    categories: dict[str, int] = field(default_factory=dict)
    points: dict[int, int] = field(default_factory=dict)
    strokes: dict[int, int] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)

    @property
    def num_sketches(self) -> int:
        """Sketches in all its shards."""
        return sum(self.points.values())

    @property
    def num_points(self) -> int:
        """Points in all its shards."""
        return sum(length * count for length, count in self.points.items())

    @property
    def num_strokes(self) -> int:
        """Strokes in all its shards."""
        return sum(length * count for length, count in self.strokes.items())


@dataclass(frozen=True)
class Source:
    """A file that the shards were made of: its name without folders; its drawings taken, rejected and skipped."""

    name: str
    num_accepted: int
    num_rejected: int
    num_skipped: int


@dataclass(frozen=True)
class Moments:
    """Of all dx and dy of the training split, each clipped to +-1000 (METHOD 1): how many, their sum, and the sum of
    their squares; exact, so that builds can be joined."""

    count: int = 0
    sum: int = 0
    sum_of_squares: int = 0

    @classmethod
    def of(cls, offsets: npt.NDArray[np.int16]) -> "Moments":
        """Of offsets, int16 [P, 2]."""
        clipped = np.clip(offsets, -MOST_OFFSET, MOST_OFFSET).astype(np.int64)
        return cls(clipped.size, int(clipped.sum()), int(np.square(clipped).sum()))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.sum + other.sum, self.sum_of_squares + other.sum_of_squares)

    @property
    def standard_deviation(self) -> float:
        """0 where there is nothing."""
        return math.sqrt(self.count * self.sum_of_squares - self.sum**2) / self.count if self.count else 0.0


@dataclass(frozen=True)
class Manifest:
    """A whole folder of shards, or a part of one.

    Attributes:
        categories: names, sorted; a sketch's category number indexes this list.
        scale: standard deviation of all clipped dx and dy of the training split (METHOD 1), in the source's units.
        moments: what it is computed from.
        longest_points: points of the drawing with the most.
        longest_strokes: strokes of the drawing with the most.
        sketches_per_block: sketches in every block of a shard but its last.
        splits: train, valid and test.
        num_read: drawings read; those in the splits, the rejected and the skipped add up to it.
        skipped: drawings that were sound but not wanted, by reason.
        rejected: drawings rejected, by reason; rejects.ndjson tells them one by one.
        sources: what was read, in order.
        licence: of the drawings, with the attribution that it asks for.
        format: always "sgloc-shards".
        version: of the format.
    """

    # What else stands in a manifest is a mistake.
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
        """A manifest whose categories, scale and longest lengths are those of its splits and moments."""
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
        """How many there are."""
        return len(self.categories)

    @property
    def shards(self) -> list[Shard]:
        """The tar files of all splits."""
        return [shard for split in self.splits.values() for shard in split.shards]

    @property
    def num_accepted(self) -> int:
        """Drawings in the splits."""
        return sum(split.num_sketches for split in self.splits.values())

    def to_json(self) -> str:
        """The file's text, a shard a line; equal manifests give equal text."""
        return _text(dataclasses.asdict(self)) + "\n"

    # Writing out the manifest of all 345 categories takes a second.
    @functools.cached_property
    def identity(self) -> str:
        """A SHA-256 of the whole manifest, in hexadecimal: equal exactly for the same drawings in the same shards."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _text(value: Any) -> str:
    """JSON in which a shard, or whatever else is no deeper nested, stands on one line."""
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
    """The manifest of all the shards of several builds, in the order given; their paths stay.

    Raises:
        DataError: if there is none, they differ in licence or in the size of blocks, or two shards have one path.
    """
    if not manifests:
        raise DataError("there is nothing to join; give at least one manifest")
    for what in ("licence", "sketches_per_block"):
        found = sorted({str(getattr(manifest, what)) for manifest in manifests})
        if len(found) > 1:
            raise DataError(f"builds of different {what} cannot be joined: {' and '.join(found)}; build one anew")
    total = sum((manifest.moments for manifest in manifests), Moments())
    splits = {name: join_splits([manifest.splits[name] for manifest in manifests]) for name in SPLITS}
    paths = Counter(shard.path for split in splits.values() for shard in split.shards)
    for path, count in paths.items():
        if count > 1:
            raise DataError(f"{count} of the builds hold a shard {path}; give each a folder or a name of its own")
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
    """All the shards of several splits as one."""
    return Split(
        categories=add_counts(split.categories for split in splits),
        points=add_counts(split.points for split in splits),
        strokes=add_counts(split.strokes for split in splits),
        shards=[shard for split in splits for shard in split.shards],
    )


def add_counts(counts: Iterable[Mapping[Any, int] | Iterable[Any]]) -> dict[Any, int]:
    """Counts added up, in the order of what is counted; what is not counted yet is."""
    total: Counter[Any] = Counter()
    for some in counts:
        total.update(some)
    return dict(sorted(total.items()))


def parse_manifest(content: bytes, path: str) -> Manifest:
    """Read a manifest, or a part's.

    Args:
        content: the file.
        path: what to call it in an error.

    Raises:
        DataError: if it is malformed, or of another format version.
    """
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a manifest ({error}); build the shards again") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise DataError(f"{path} is not a manifest of {FORMAT}; give a folder that `sgloc shard` wrote")
    if fields.get("version") != VERSION:
        raise DataError(
            f"{path} is of format version {fields.get('version')}, this program reads version {VERSION}; "
            "build the shards again"
        )
    try:
        manifest = from_json(content, Manifest)
        _check(manifest)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} is malformed ({error}); build the shards again") from error
    return manifest


def _check(manifest: Manifest) -> None:
    """Raise ValueError unless the fields that reading relies on fit together."""
    _require(math.isclose(manifest.scale, manifest.moments.standard_deviation), "scale is not that of the moments")
    _require(manifest.sketches_per_block > 0, "sketches_per_block is not above 0")
    _require(set(manifest.splits) == set(SPLITS), f"the splits are not {', '.join(SPLITS)}")
    for name, split in manifest.splits.items():
        _require(set(split.categories) <= set(manifest.categories), f"{name} has categories that are not listed")
        for shard in split.shards:
            num_blocks = -(-shard.num_sketches // manifest.sketches_per_block)
            for numbers in (shard.block_offsets, shard.block_sizes, shard.block_checksums):
                _require(len(numbers) == num_blocks, f"{shard.path} has another number of blocks")
            _require("/" not in shard.path and "\\" not in shard.path, f"{shard.path!r} is not in the folder")
        total = sum(shard.num_sketches for shard in split.shards)
        _require(split.num_sketches == total, f"the {name} shards do not add up to {split.num_sketches} drawings")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def load_manifest(folder: str, retries: Retries | None = None) -> Manifest:
    """Read the manifest of a folder or URL of shards.

    Args:
        folder: where the shards are.
        retries: what is tried again, how often and after how long.

    Raises:
        DataError: if there is none, it is malformed, or it is of another format version.
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
