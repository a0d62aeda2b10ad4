"""Complete reading and checking of single shards and of a folder's rejects."""

import hashlib
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sgloc.data.block import Block, unpack_block
from sgloc.data.build.state import REJECTS_NAME
from sgloc.data.build.writer import pack_tar
from sgloc.data.manifest import Manifest, Moments, Shard, Split, add_counts
from sgloc.errors import DataError
from sgloc.storage import Retries, Storage, reading


@dataclass
class CheckedShard:
    """The result of checking a shard.

    Attributes:
        problems: one sentence per problem.
        split: counts of the readable blocks.
        moments: moments of the offsets in the readable blocks.
        key_ids: uint64 [n], key_ids in the readable blocks.
        num_bytes: number of bytes read.
        num_retries: number of read retries.
        is_whole: whether all drawings could be read.
    """

    problems: list[str] = field(default_factory=list)
    split: Split = field(default_factory=Split)
    moments: Moments = field(default_factory=Moments)
    key_ids: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    num_bytes: int = 0
    num_retries: int = 0
    is_whole: bool = True

    def lose(self, error: DataError) -> None:
        """Record an error that makes drawings unreadable."""
        self.problems.append(str(error))
        self.is_whole = False


def read_shard(storage: Storage, shard: Shard) -> bytes:
    """Read a shard's content.

    Raises:
        DataError: if the shard cannot be read, or its size differs from the manifest's.
    """
    path = storage.path(shard.path)
    with reading(path, storage.retries):
        content = b"".join(storage.pieces(shard.path))
    if len(content) != shard.num_bytes:
        raise DataError(
            f"{path} has {len(content)} bytes, but its manifest says {shard.num_bytes}; build the shards again"
        )
    return content


def read_rejects(storage: Storage, manifest: Manifest) -> Iterator[bytes]:
    """Yield the content of a folder's rejects.ndjson in pieces.

    Raises:
        DataError: if the file cannot be read; after the last piece, if its number of lines differs from the manifest's
            number of rejects.
    """
    num_lines, num_rejected = 0, sum(manifest.rejected.values())
    with reading(storage.path(REJECTS_NAME), storage.retries):
        for content in storage.pieces(REJECTS_NAME):
            num_lines += content.count(b"\n")
            yield content
    if num_lines != num_rejected:
        raise DataError(
            f"{REJECTS_NAME} in {storage.location} has {num_lines} lines, but the manifest counts {num_rejected} "
            "rejected drawings; build the shards again"
        )


def check_shard(shard: Shard, folder: str, sketches_per_block: int, retries: Retries) -> CheckedShard:
    """Read a shard and compare it with the manifest.

    Args:
        shard: the shard's entry in the manifest.
        folder: folder or URL of the shard.
        sketches_per_block: number of sketches per block; the last block may have fewer.
        retries: retry policy for failed reads.
    """
    checked, storage = CheckedShard(), Storage(folder, retries)
    try:
        content = read_shard(storage, shard)
    except DataError as error:
        checked.lose(error)
    else:
        checked.num_bytes = len(content)
        _check(checked, content, shard, sketches_per_block)
    checked.num_retries = storage.num_retries
    return checked


def _check(checked: CheckedShard, content: bytes, shard: Shard, sketches_per_block: int) -> None:
    """Record a shard's counts and problems."""
    places = zip(shard.block_offsets, shard.block_sizes, strict=True)
    contents = [content[offset : offset + size] for offset, size in places]
    blocks = []
    for number, block_content in enumerate(contents):
        start = shard.block_offsets[number]
        where = f"block {number} (bytes {start} to {start + shard.block_sizes[number]})"
        try:
            block = _unpack(block_content, shard.block_checksums[number], where)
        except DataError as error:
            checked.lose(error)
            continue
        blocks.append(block)
        num_sketches = min(sketches_per_block, shard.num_sketches - number * sketches_per_block)
        if len(block) != num_sketches:
            checked.problems.append(f"{where} holds {len(block)} drawings, but the manifest says {num_sketches}")
        if block.stroke_lengths.min() == 0 or block.num_strokes.min() == 0:
            checked.problems.append(f"{where} holds an empty stroke or drawing")
    checked.split = Split(
        add_counts(block.words[block.category].tolist() for block in blocks),
        add_counts(np.diff(block.point_starts).tolist() for block in blocks),
        add_counts(block.num_strokes.tolist() for block in blocks),
    )
    checked.moments = sum((Moments.of(block.offsets) for block in blocks), Moments())
    checked.key_ids = np.concatenate([checked.key_ids, *(block.key_id for block in blocks)])
    if checked.problems:
        return
    # All blocks are intact; compare the tar headers and padding between them too.
    tar, sha256 = pack_tar(contents)[0], hashlib.sha256(content).hexdigest()
    if content != tar:
        pairs = enumerate(itertools.zip_longest(content, tar))
        place = next(place for place, (found, expected) in pairs if found != expected)
        checked.problems.append(f"byte {place} differs from a tar file of its blocks")
    elif sha256 != shard.sha256:
        checked.problems.append(f"its SHA-256 is {sha256}, but the manifest says {shard.sha256}")


def _unpack(content: bytes, checksum: int, where: str) -> Block:
    """Unpack a block after comparing its checksum with the manifest's."""
    if zlib.crc32(content) != checksum:
        raise DataError(f"{where} is damaged: its checksum is {zlib.crc32(content)}, but the manifest says {checksum}")
    return unpack_block(content, where)
