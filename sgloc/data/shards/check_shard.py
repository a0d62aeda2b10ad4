"""Reads one shard from its first byte to its last, and counts what it holds."""

import functools
import hashlib
import math
import tarfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sgloc.data.block import Block, unpack_block
from sgloc.data.manifest import Moments, Shard
from sgloc.data.remote.access import Retries, open_file_system, read_range, retrying
from sgloc.errors import DataError
from sgloc.sketch.drawing import MOST_OFFSET

_TAR_RECORD = 512
# Two empty records end a tar file; more may follow.
_TAR_END = 2 * _TAR_RECORD


@dataclass
class Contents:
    """What drawings there are.

    Attributes:
        categories: drawings of each category.
        points: drawings of each number of points.
        strokes: drawings of each number of strokes.
        moments: of all offsets.
    """

    categories: Counter[str] = field(default_factory=Counter)
    points: Counter[int] = field(default_factory=Counter)
    strokes: Counter[int] = field(default_factory=Counter)
    moments: Moments = field(default_factory=Moments)

    def add(self, other: "Contents") -> None:
        """Count others in."""
        self.categories.update(other.categories)
        self.points.update(other.points)
        self.strokes.update(other.strokes)
        self.moments = Moments(
            self.moments.count + other.moments.count,
            self.moments.sum + other.moments.sum,
            self.moments.sum_of_squares + other.moments.sum_of_squares,
        )

    def add_block(self, block: Block) -> None:
        """Count a block's drawings in."""
        offsets = np.clip(block.offsets, -MOST_OFFSET, MOST_OFFSET).astype(np.int64)
        of_each_word = np.bincount(block.category, minlength=len(block.words)).tolist()
        self.add(
            Contents(
                categories=Counter(dict(zip(block.words.tolist(), of_each_word, strict=True))),
                points=_counted(np.diff(block.point_starts)),
                strokes=_counted(block.num_strokes),
                moments=Moments(offsets.size, int(offsets.sum()), int(np.square(offsets).sum())),
            )
        )


def _counted(values: npt.NDArray[Any]) -> Counter[int]:
    found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


@dataclass
class CheckedShard:
    """What a shard was found to be.

    Attributes:
        problems: a sentence each.
        contents: of the blocks that could be read.
        key_ids: uint64 [n], theirs.
        num_bytes: that were read.
        num_retries: reads that were tried again.
        is_whole: whether all drawings could be read.
    """

    problems: list[str] = field(default_factory=list)
    contents: Contents = field(default_factory=Contents)
    key_ids: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    num_bytes: int = 0
    num_retries: int = 0
    is_whole: bool = True

    def lose(self, problem: str) -> None:
        """Tell of drawings that cannot be read."""
        self.problems.append(problem)
        self.is_whole = False

    def count_retry(self, _: str) -> None:
        """Take that a read is tried again."""
        self.num_retries += 1


def check_shard(shard: Shard, folder: str, sketches_per_block: int, retries: Retries) -> CheckedShard:
    """Read a shard, a block at a time.

    Args:
        shard: what the manifest says of it.
        folder: folder or URL that it is in.
        sketches_per_block: in each block but the last.
        retries: of reads that fail.
    """
    checked = CheckedShard()
    file_system, root = open_file_system(folder, retries.timeout)
    path = f"{root}/{shard.path}"
    try:
        size = retrying(lambda: file_system.size(path), path, retries, checked.count_retry)
    except DataError as error:
        is_missing = isinstance(error.__cause__, FileNotFoundError)
        checked.lose("it is missing" if is_missing else str(error))
        return checked
    # Some servers do not tell.
    if size is not None and size != shard.num_bytes:
        checked.lose(f"it has {size} bytes, the manifest says {shard.num_bytes}")
        return checked
    ends = _block_ends(shard)
    if ends is None or ends[-1] + _TAR_END > shard.num_bytes:
        checked.lose("the blocks that the manifest lists do not follow one another, as a tar file's members do")
        return checked
    sha256 = hashlib.sha256()
    keys = []
    for number, (start, end) in enumerate(zip([0, *ends], [*ends, shard.num_bytes], strict=True)):
        where = f"bytes {start} to {end} of {path}"
        try:
            read = functools.partial(read_range, file_system, path, start, end, file_size=size)
            content = retrying(read, where, retries, checked.count_retry)
        except DataError as error:
            checked.lose(str(error))
            return checked
        sha256.update(content)
        checked.num_bytes += len(content)
        if number < len(ends):
            num_sketches = min(sketches_per_block, shard.num_sketches - number * sketches_per_block)
            keys += _check_member(checked, content, shard, number, num_sketches)
        elif any(content):
            checked.problems.append(f"there is something after its last block ({where}), where a tar file ends")
    checked.key_ids = np.concatenate([checked.key_ids, *keys])
    if not checked.problems and sha256.hexdigest() != shard.sha256:
        checked.problems.append(f"its SHA-256 is {sha256.hexdigest()}, the manifest says {shard.sha256}")
    return checked


def _block_ends(shard: Shard) -> list[int] | None:
    """Where each member of the tar file ends; None if they do not follow one another."""
    ends: list[int] = []
    for offset, size in zip(shard.block_offsets, shard.block_sizes, strict=True):
        if offset != (ends[-1] if ends else 0) + _TAR_RECORD:
            return None
        ends.append(offset + math.ceil(size / _TAR_RECORD) * _TAR_RECORD)
    return ends or None


def _check_member(
    checked: CheckedShard, member: bytes, shard: Shard, number: int, num_sketches: int
) -> list[npt.NDArray[np.uint64]]:
    """Check a header, the block that follows it and its padding; gives the block's key_ids, if they can be read."""
    size = shard.block_sizes[number]
    where = f"block {number} (bytes {shard.block_offsets[number]} to {shard.block_offsets[number] + size})"
    problem = _header_problem(member[:_TAR_RECORD], number, size)
    if problem is not None:
        checked.problems.append(f"the tar header of {where} {problem}")
    content = member[_TAR_RECORD : _TAR_RECORD + size]
    if any(member[_TAR_RECORD + size :]):
        checked.problems.append(f"there is something after {where}, where a tar file has zeros")
    if zlib.crc32(content) != shard.block_checksums[number]:
        checked.lose(
            f"{where} is damaged: its checksum is {zlib.crc32(content)}, the manifest says "
            f"{shard.block_checksums[number]}"
        )
        return []
    try:
        block = unpack_block(content, where)
    except DataError as error:
        checked.lose(str(error))
        return []
    if len(block) != num_sketches:
        checked.problems.append(f"{where} holds {len(block)} drawings, the manifest says {num_sketches}")
    if block.stroke_lengths.min() == 0 or block.num_strokes.min() == 0:
        checked.problems.append(f"{where} holds an empty stroke or drawing")
    checked.contents.add_block(block)
    return [block.key_id]


def _header_problem(header: bytes, number: int, size: int) -> str | None:
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return f"is damaged ({error})"
    if not member.isreg() or member.name.partition(".")[0] != f"{number:06d}" or member.size != size:
        return f"is that of {member.name!r} with {member.size} bytes"
    return None
