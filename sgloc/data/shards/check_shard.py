"""Reads one shard from its first byte to its last, and counts what it holds."""

import hashlib
import math
import tarfile
import zlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sgloc.data.block import unpack_block
from sgloc.data.manifest import Contents, Shard
from sgloc.errors import DataError
from sgloc.storage import Retries, Storage, is_transient, reading

_TAR_RECORD = 512
# Two empty records end a tar file; more may follow.
_TAR_END = 2 * _TAR_RECORD


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


def check_shard(shard: Shard, folder: str, sketches_per_block: int, retries: Retries) -> CheckedShard:
    """Read a shard, a block at a time.

    Args:
        shard: what the manifest says of it.
        folder: folder or URL that it is in.
        sketches_per_block: in each block but the last.
        retries: of reads that fail.
    """
    checked, storage = CheckedShard(), Storage(folder, retries)
    try:
        _check(checked, shard, storage, sketches_per_block)
    except DataError as error:
        checked.lose(str(error))
    checked.num_retries = storage.num_retries
    return checked


def _check(checked: CheckedShard, shard: Shard, storage: Storage, sketches_per_block: int) -> None:
    """Note what is wrong with a shard; raise a DataError where nothing more can be read."""
    path = storage.path(shard.path)
    with reading(path, storage.retries):
        try:
            size = storage.size(shard.path)
        except FileNotFoundError as error:
            if is_transient(error):
                raise
            raise DataError("it is missing") from error
    # Some servers do not tell.
    if size is not None and size != shard.num_bytes:
        raise DataError(f"it has {size} bytes, the manifest says {shard.num_bytes}")
    ends = _block_ends(shard)
    if ends is None or ends[-1] + _TAR_END > shard.num_bytes:
        raise DataError("the blocks that the manifest lists do not follow one another, as a tar file's members do")
    sha256 = hashlib.sha256()
    keys = []
    for number, (start, end) in enumerate(zip([0, *ends], [*ends, shard.num_bytes], strict=True)):
        where = f"bytes {start} to {end} of {path}"
        with reading(where, storage.retries):
            content = storage.read(shard.path, start, end, file_size=size)
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
    of_each_word = np.bincount(block.category, minlength=len(block.words)).tolist()
    checked.contents.categories.update(dict(zip(block.words.tolist(), of_each_word, strict=True)))
    checked.contents.count(block.offsets, np.diff(block.point_starts).tolist(), block.num_strokes.tolist())
    return [block.key_id]


def _header_problem(header: bytes, number: int, size: int) -> str | None:
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return f"is damaged ({error})"
    if not member.isreg() or member.name.partition(".")[0] != f"{number:06d}" or member.size != size:
        return f"is that of {member.name!r} with {member.size} bytes"
    return None
