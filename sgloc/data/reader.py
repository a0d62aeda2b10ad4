"""Random access to the blocks of local or remote shards, with range reads, checksums, retries and a cache."""

import logging
import threading
import zlib
from dataclasses import dataclass, field

import numpy as np

from sgloc.data.batch import PackedBatch
from sgloc.data.block import IntArray, unpack_block
from sgloc.data.cache import BlockCache
from sgloc.data.manifest import Manifest, Shard
from sgloc.errors import DataError
from sgloc.storage import DamagedReadError, Retries, Storage, read_range, reading

logger = logging.getLogger(__name__)


class BadShardError(DataError):
    """A shard that stays unreadable or damaged.

    Attributes:
        shard: index of the shard in its split.
    """

    def __init__(self, message: str, shard: int) -> None:
        super().__init__(message)
        self.shard = shard


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading shards.

    Attributes:
        retries: retry policy for failed reads.
        cache: block cache on a local disk; None disables caching.
        patience: seconds to wait for a batch from the read-ahead, all retries included; None waits forever.
    """

    retries: Retries = field(default_factory=Retries)
    cache: BlockCache | None = None
    patience: float | None = None


class ShardReader:
    """Thread-safe random access to the blocks of one split.

    Args:
        folder: folder or URL of the shards.
        manifest: manifest of the shards.
        split: "train", "valid" or "test".
        options: read options; None uses the defaults.

    Attributes:
        num_sketches: number of sketches in the split.
        num_blocks: number of blocks in the split.
        num_bytes_read: bytes read from the shards so far, cache hits excluded.
        is_local: whether the shards are local files.

    Raises:
        DataError: if the split is empty.
    """

    def __init__(self, folder: str, manifest: Manifest, split: str, options: ReadOptions | None = None) -> None:
        self.folder, self.manifest, self.split, self.options = folder, manifest, split, options or ReadOptions()
        self.shards = manifest.splits[split].shards
        self.num_sketches = manifest.splits[split].num_sketches
        if self.num_sketches == 0:
            raise DataError(f"the {split} split of {folder} is empty; build the shards from more drawings")
        self._shard_starts = np.cumsum([0] + [shard.num_sketches for shard in self.shards])
        self._first_block = np.cumsum([0] + [len(shard.block_sizes) for shard in self.shards])
        self.num_blocks = int(self._first_block[-1])
        self._category_numbers = {name: number for number, name in enumerate(manifest.categories)}
        self._cache_name = manifest.identity[:16]
        self._storage = Storage(folder, self.options.retries)
        self.is_local = self._storage.is_local
        self._counting = threading.Lock()
        self.num_bytes_read = 0

    @property
    def num_retries(self) -> int:
        """Number of read retries so far."""
        return self._storage.num_retries

    def spread(self, count: int) -> IntArray:
        """Return the indices of at most `count` sketches spread evenly over the split."""
        count = min(count, self.num_sketches)
        numbers: IntArray = np.arange(count, dtype=np.int64) * self.num_sketches // count
        return numbers

    def shard_of(self, sketches: IntArray) -> IntArray:
        """Return the shard index, int64 [n], of each sketch index, int64 [n], counted across all shards."""
        return np.searchsorted(self._shard_starts, sketches, side="right") - 1

    def places(self, sketches: IntArray) -> tuple[IntArray, IntArray]:
        """Return the block index and the index within that block, int64 [n] each, of each sketch index, int64 [n]."""
        shard = self.shard_of(sketches)
        within, place = np.divmod(sketches - self._shard_starts[shard], self.manifest.sketches_per_block)
        return self._first_block[shard] + within, place

    def fetch_bytes(self, block: int) -> bytes:
        """Read one block's bytes and verify their checksum.

        Args:
            block: index of the block, counted across the shards in manifest order.

        Raises:
            BadShardError: if the block stays unreadable or damaged.
        """
        shard_number, number, where = self._find(block)
        shard = self.shards[shard_number]
        name = f"{self._cache_name}/{shard.path}/{number:06d}"
        content = self._cached(name, shard.block_checksums[number])
        if content is None:
            try:
                with reading(where, self.options.retries):
                    content = self._storage.retry(lambda: self._read(shard, number, where), where)
            except DataError as error:
                raise BadShardError(str(error), shard_number) from error
            self._keep(name, content)
        return content

    def unpack(self, content: bytes, block: int, epoch: int) -> PackedBatch:
        """Unpack a block's bytes into its sketches for a visit in the given epoch.

        Raises:
            BadShardError: if the content is damaged or contradicts the manifest.
        """
        shard_number, _, where = self._find(block)
        try:
            found = unpack_block(content, where)
            numbers = [self._category_numbers[word] for word in found.words.tolist()]
        except KeyError as error:
            told = f"{where} has drawings of category {error}, which the manifest does not list"
            raise BadShardError(told, shard_number) from error
        except DataError as error:
            raise BadShardError(str(error), shard_number) from error
        return PackedBatch(
            offsets=found.offsets,
            stroke_lengths=found.stroke_lengths.astype(np.int32),
            num_strokes=found.num_strokes.astype(np.int32),
            category=np.array(numbers, dtype=np.int32)[found.category],
            key_id=found.key_id,
            epoch=np.full(len(found), epoch, dtype=np.int64),
        )

    def _find(self, block: int) -> tuple[int, int, str]:
        """Return the index of a block's shard, the block's index in that shard, and a description for errors."""
        shard_number = int(np.searchsorted(self._first_block, block, side="right")) - 1
        number = int(block - self._first_block[shard_number])
        shard = self.shards[shard_number]
        start, size = shard.block_offsets[number], shard.block_sizes[number]
        where = f"block {number} of shard {self._storage.path(shard.path)} (bytes {start} to {start + size})"
        return shard_number, number, where

    def _read(self, shard: Shard, number: int, where: str) -> bytes:
        """Read a block of a shard, without retries."""
        start, size = shard.block_offsets[number], shard.block_sizes[number]
        path = self._storage.path(shard.path)
        try:
            content = read_range(self._storage.file_system, path, start, start + size, file_size=shard.num_bytes)
            with self._counting:
                self.num_bytes_read += len(content)
            if zlib.crc32(content) != shard.block_checksums[number]:
                raise DamagedReadError("checksum mismatch")
        except DamagedReadError as error:
            # Retry only remote reads: the transfer may have corrupted the data, while a disk returns the same bytes
            # again.
            if not self.is_local:
                raise
            raise DataError(f"{where} is damaged ({error}); restore it or build the shards again") from error
        return content

    def _cached(self, name: str, checksum: int) -> bytes | None:
        if self.options.cache is None:
            return None
        content = self.options.cache.get(name)
        if content is not None and zlib.crc32(content) != checksum:
            self.options.cache.drop(name)
            logger.warning("%s in the cache %s is damaged; fetching it again", name, self.options.cache.folder)
            return None
        return content

    def _keep(self, name: str, content: bytes) -> None:
        if self.options.cache is not None:
            try:
                self.options.cache.put(name, content)
            except OSError as error:
                logger.warning("cannot cache %s (%s); make room, or choose another data.cache", name, error)
