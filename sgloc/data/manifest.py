"""manifest.json: what a folder of shards holds. The folder is complete when it is there."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import fsspec

from sgloc.errors import DataError

FORMAT = "sgloc-shards"
VERSION = 1
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
        block_offsets: where in the file each block's npz begins, in bytes.
        block_sizes: how long each block's npz is, in bytes.
    """

    path: str
    num_sketches: int
    num_bytes: int
    sha256: str
    block_offsets: list[int]
    block_sizes: list[int]


@dataclass(frozen=True)
class Split:
    """The shards of train, valid or test, with what they hold in all."""

    num_sketches: int
    num_strokes: int
    num_points: int
    sketches_per_category: dict[str, int]
    shards: list[Shard]


@dataclass(frozen=True)
class Source:
    """A file that the shards were made of: its name without folders; its drawings taken, rejected, and passed over as
    of a category not asked for."""

    name: str
    num_accepted: int
    num_rejected: int
    num_skipped: int


@dataclass(frozen=True)
class Manifest:
    """A whole folder of shards.

    Attributes:
        categories: names; a block's category numbers index this list.
        scale: standard deviation of all clipped dx and dy of the training split (METHOD 1), in the source's units.
        longest_points: points of the drawing with the most.
        longest_strokes: strokes of the drawing with the most.
        sketches_per_block: sketches in every block of a shard but its last.
        splits: train, valid and test.
        num_read: drawings read; those in the splits, the rejected and the skipped add up to it.
        num_skipped: drawings of categories that were not asked for.
        rejected: drawings rejected, by reason; rejects.ndjson tells them one by one.
        sources: what was read, in order.
        licence: of the drawings, with the attribution that it asks for.
        format: always "sgloc-shards".
        version: of the format.
    """

    categories: list[str]
    scale: float
    longest_points: int
    longest_strokes: int
    sketches_per_block: int
    splits: dict[str, Split]
    num_read: int
    num_skipped: int
    rejected: dict[str, int]
    sources: list[Source]
    licence: str
    format: str = FORMAT
    version: int = VERSION

    def to_json(self) -> str:
        """The file's text; equal manifests give equal text."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @property
    def identity(self) -> str:
        """A SHA-256 of the whole manifest, in hexadecimal: equal exactly for the same drawings in the same shards."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _parse(fields: dict[str, Any]) -> Manifest:
    splits = {}
    for name, split in fields["splits"].items():
        splits[name] = Split(**{**split, "shards": [Shard(**shard) for shard in split["shards"]]})
    sources = [Source(**source) for source in fields["sources"]]
    manifest = Manifest(**{**fields, "splits": splits, "sources": sources})
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """Raise ValueError unless the fields that reading relies on are what they must be and fit together."""
    _require(0 < manifest.scale < math.inf, "scale is not a positive number")
    _require(all(isinstance(name, str) for name in manifest.categories), "categories are not names")
    _require(
        _is_count(manifest.sketches_per_block) and manifest.sketches_per_block > 0, "sketches_per_block is no count"
    )
    _require(_is_count(manifest.longest_points), "longest_points is no count")
    _require(set(manifest.splits) == set(SPLITS), f"the splits are not {', '.join(SPLITS)}")
    for name, split in manifest.splits.items():
        for shard in split.shards:
            _require(_is_count(shard.num_sketches), f"num_sketches of a {name} shard is no count")
            num_blocks = -(-shard.num_sketches // manifest.sketches_per_block)
            for numbers in (shard.block_offsets, shard.block_sizes):
                _require(len(numbers) == num_blocks and all(map(_is_count, numbers)), f"{shard.path} has other blocks")
            _require("/" not in shard.path and "\\" not in shard.path, f"{shard.path!r} is not in the folder")
        total = sum(shard.num_sketches for shard in split.shards)
        _require(split.num_sketches == total, f"the {name} shards do not add up to {split.num_sketches} drawings")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def manifest_path(folder: str) -> str:
    """Where the manifest of a folder or URL of shards stands."""
    return f"{folder.rstrip('/')}/{FILE_NAME}"


def load_manifest(folder: str) -> Manifest:
    """Read the manifest of a folder or URL of shards.

    Raises:
        DataError: if there is none, it is malformed, or it is of another format version.
    """
    path = manifest_path(folder)
    try:
        with fsspec.open(path, "rb") as stream:
            fields = json.loads(stream.read())
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give a folder that `sgloc shard` wrote") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a manifest ({error}); build the shards again") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise DataError(f"{path} is not a manifest of {FORMAT}; give a folder that `sgloc shard` wrote")
    if fields.get("version") != VERSION:
        raise DataError(
            f"{path} is of format version {fields.get('version')}, this program reads version {VERSION}; "
            "build the shards again"
        )
    try:
        return _parse(fields)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is malformed ({error}); build the shards again") from error
