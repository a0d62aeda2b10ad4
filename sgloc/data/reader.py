"""Random access to the blocks of shards, wherever they are: fetched in ranges, checked, retried and cached."""

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
        shard: its number in its split.
    """

    def __init__(self, message: str, shard: int) -> None:
        super().__init__(message)
        self.shard = shard


@dataclass(frozen=True)
class ReadOptions:
    """How shards are read.

    Attributes:
        retries: what is tried again, how often and after how long.
        cache: where blocks are kept on a local disk; None: nowhere.
        patience: seconds to wait for a batch that is read ahead, all retries included; None: any number.
    """

    retries: Retries = field(default_factory=Retries)
    cache: BlockCache | None = None
    patience: float | None = None


class ShardReader:
    """Random access to the blocks of one split. Several threads may call its methods at the same time.

    Args:
        folder: folder or URL of the shards.
        manifest: its manifest.
        split: "train", "valid" or "test".
        options: how to read.

    Attributes:
        num_sketches: in the split.
        num_blocks: in the split.
        num_bytes_read: from the shards, not from the cache.
        is_local: whether the shards are files of this machine.

    Raises:
        DataError: if the split is empty.
    """

    def __init__(self, folder: str, manifest: Manifest, split: str, options: ReadOptions | None = None) -> None:
        self.folder, self.manifest, self.split, self.options = folder, manifest, split, options or ReadOptions()
        self.shards = manifest.splits[split].shards
        self.num_sketches = manifest.splits[split].num_sketches
        if self.num_sketches == 0:
            raise DataError(f"the {split} split of {folder} holds no drawing; build the shards from more drawings")
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
        """Reads that were tried again."""
        return self._storage.num_retries

    def spread(self, count: int) -> IntArray:
        """Numbers of at most `count` sketches, spread evenly over the split."""
        count = min(count, self.num_sketches)
        numbers: IntArray = np.arange(count, dtype=np.int64) * self.num_sketches // count
        return numbers

    def shard_of(self, sketches: IntArray) -> IntArray:
        """The numbers of the shards, int64 [n], that hold sketches, int64 [n], counted through all shards."""
        return np.searchsorted(self._shard_starts, sketches, side="right") - 1

    def places(self, sketches: IntArray) -> tuple[IntArray, IntArray]:
        """The numbers of the blocks, int64 [n], that hold sketches, int64 [n], and each sketch's place in its block."""
        shard = self.shard_of(sketches)
        within, place = np.divmod(sketches - self._shard_starts[shard], self.manifest.sketches_per_block)
        return self._first_block[shard] + within, place

    def fetch_bytes(self, block: int) -> bytes:
        """Read one block's bytes, which are then known to be sound.

        Args:
            block: its number, counted through the shards as the manifest lists them.

        Raises:
            BadShardError: if they stay unreadable or damaged.
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
        """What a block's bytes hold, to be visited in an epoch.

        Raises:
            BadShardError: if it is not what the manifest says.
        """
        shard_number, _, where = self._find(block)
        try:
            found = unpack_block(content, where)
            numbers = [self._category_numbers[word] for word in found.words.tolist()]
        except KeyError as error:
            told = f"{where} has drawings of {error}, which the manifest does not list"
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
        """The number of a block's shard, its own in it, and what to call it."""
        shard_number = int(np.searchsorted(self._first_block, block, side="right")) - 1
        number = int(block - self._first_block[shard_number])
        shard = self.shards[shard_number]
        start, size = shard.block_offsets[number], shard.block_sizes[number]
        where = f"block {number} of shard {self._storage.path(shard.path)} (bytes {start} to {start + size})"
        return shard_number, number, where

    def _read(self, shard: Shard, number: int, where: str) -> bytes:
        """Read a block of a shard once."""
        start, size = shard.block_offsets[number], shard.block_sizes[number]
        path = self._storage.path(shard.path)
        try:
            content = read_range(self._storage.file_system, path, start, start + size, file_size=shard.num_bytes)
            with self._counting:
                self.num_bytes_read += len(content)
            if zlib.crc32(content) != shard.block_checksums[number]:
                raise DamagedReadError("its checksum is another")
        except DamagedReadError as error:
            # A server may have sent it wrong; a disk gives the same again.
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
            logger.warning("%s in the cache %s is damaged and is fetched again", name, self.options.cache.folder)
            return None
        return content

    def _keep(self, name: str, content: bytes) -> None:
        if self.options.cache is not None:
            try:
                self.options.cache.put(name, content)
            except OSError as error:
                logger.warning("%s cannot be cached (%s); make room, or give another data.cache", name, error)
