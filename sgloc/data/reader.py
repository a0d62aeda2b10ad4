"""Random access to the blocks of shards, wherever they are: fetched in ranges, checked, retried and cached."""

import collections
import logging
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sgloc.data.batch import PackedBatch, concatenate
from sgloc.data.block import Block, IntArray, unpack_block
from sgloc.data.cache import BlockCache
from sgloc.data.manifest import Manifest
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
    """Random access to the sketches of one split. Several threads may call its methods at the same time.

    Args:
        folder: folder or URL of the shards.
        manifest: its manifest.
        split: "train", "valid" or "test".
        num_kept_blocks: blocks that `read` keeps in memory.
        options: how to read.

    Attributes:
        num_bytes_read: from the shards, not from the cache.
        is_local: whether the shards are files of this machine.

    Raises:
        DataError: if the split is empty.
    """

    def __init__(
        self,
        folder: str,
        manifest: Manifest,
        split: str,
        num_kept_blocks: int = 8,
        options: ReadOptions | None = None,
    ) -> None:
        self.folder, self.manifest, self.split, self.options = folder, manifest, split, options or ReadOptions()
        self.shards = manifest.splits[split].shards
        self.num_sketches = manifest.splits[split].num_sketches
        if self.num_sketches == 0:
            raise DataError(f"the {split} split of {folder} holds no drawing; build the shards from more drawings")
        self._shard_starts = np.cumsum([0] + [shard.num_sketches for shard in self.shards])
        self._first_block = np.cumsum([0] + [len(shard.block_sizes) for shard in self.shards])
        self._category_numbers = {name: number for number, name in enumerate(manifest.categories)}
        self._cache_name = manifest.identity[:16]
        self._storage = Storage(folder, self.options.retries)
        self.is_local = self._storage.is_local
        self._num_kept_blocks = num_kept_blocks
        self._kept: collections.OrderedDict[int, PackedBatch] = collections.OrderedDict()
        self._counting, self._keeping = threading.Lock(), threading.Lock()
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

    def fetch(self, block: int, epoch: int) -> PackedBatch:
        """Read one block.

        Args:
            block: its number, counted through the shards as the manifest lists them.
            epoch: in which its sketches are visited.

        Raises:
            BadShardError: if it stays unreadable or damaged.
        """
        return self.unpack(self.fetch_bytes(block), block, epoch)

    def fetch_bytes(self, block: int) -> bytes:
        """Read one block's bytes, which are then known to be sound.

        Raises:
            BadShardError: if they stay unreadable or damaged.
        """
        shard_number, number, where = self._find(block)
        shard = self.shards[shard_number]
        size = shard.block_sizes[number]
        name = f"{self._cache_name}/{shard.path}/{number:06d}"
        content = self._cached(name, size, shard.block_checksums[number])
        try:
            if content is None:
                content = self._fetch_remote(shard_number, number, where)
                self._keep(name, content)
        except DataError as error:
            raise BadShardError(str(error), shard_number) from error
        return content

    def unpack(self, content: bytes, block: int, epoch: int) -> PackedBatch:
        """What a block's bytes hold.

        Raises:
            BadShardError: if it is not what the manifest says.
        """
        shard_number, _, where = self._find(block)
        try:
            return self._packed(unpack_block(content, where), epoch, where)
        except DataError as error:
            raise BadShardError(str(error), shard_number) from error

    def _find(self, block: int) -> tuple[int, int, str]:
        """The number of a block's shard, its own in it, and what to call it."""
        shard_number = int(np.searchsorted(self._first_block, block, side="right")) - 1
        number = int(block - self._first_block[shard_number])
        shard = self.shards[shard_number]
        start, size = shard.block_offsets[number], shard.block_sizes[number]
        where = f"block {number} of shard {self._storage.path(shard.path)} (bytes {start} to {start + size})"
        return shard_number, number, where

    def read(self, sketches: IntArray, epoch: IntArray, bytes_of: Callable[[int], bytes] | None = None) -> PackedBatch:
        """Read sketches.

        Args:
            sketches: int64 [B], numbers in the split, counted through the shards as the manifest lists them; B >= 1.
            epoch: int64 [B], in which each is visited.
            bytes_of: gives the bytes of a block that is not in memory; default: `fetch_bytes`.

        Raises:
            BadShardError: if a shard is missing or damaged.
        """
        blocks, which, place = self._places(sketches)
        parts = [
            self._block(block, bytes_of or self.fetch_bytes).take(place[which == number])
            for number, block in enumerate(blocks.tolist())
        ]
        # The parts hold the sketches block after block; they are asked for in another sequence.
        found = concatenate(parts).take(np.argsort(np.argsort(which, kind="stable")))
        return PackedBatch(found.offsets, found.stroke_lengths, found.num_strokes, found.category, found.key_id, epoch)

    def shard_of(self, sketches: IntArray) -> IntArray:
        """The numbers of the shards, int64 [n], that hold sketches, int64 [n], counted through all shards."""
        return np.searchsorted(self._shard_starts, sketches, side="right") - 1

    def missing_blocks(self, sketches: IntArray) -> list[int]:
        """The blocks that hold sketches, int64 [n], and that `read` does not have in memory."""
        blocks, _, _ = self._places(sketches)
        with self._keeping:
            return [block for block in blocks.tolist() if block not in self._kept]

    def _places(self, sketches: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """The blocks that hold sketches [n], which of these each is in, and where in it."""
        shard = self.shard_of(sketches)
        within, place = np.divmod(sketches - self._shard_starts[shard], self.manifest.sketches_per_block)
        blocks, which = np.unique(self._first_block[shard] + within, return_inverse=True)
        return blocks, which, place

    def _block(self, block: int, bytes_of: Callable[[int], bytes]) -> PackedBatch:
        with self._keeping:
            found = self._kept.get(block)
        if found is None:
            found = self.unpack(bytes_of(block), block, 0)
        with self._keeping:
            self._kept[block] = found
            self._kept.move_to_end(block)
            if len(self._kept) > self._num_kept_blocks:
                self._kept.popitem(last=False)
        return found

    def _fetch_remote(self, shard_number: int, number: int, where: str) -> bytes:
        shard = self.shards[shard_number]
        start, size = shard.block_offsets[number], shard.block_sizes[number]

        def fetch() -> bytes:
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

        with reading(where, self.options.retries):
            return self._storage.retry(fetch, where)

    def _cached(self, name: str, size: int, checksum: int) -> bytes | None:
        if self.options.cache is None:
            return None
        content = self.options.cache.get(name)
        if content is not None and (len(content) != size or zlib.crc32(content) != checksum):
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

    def _packed(self, block: Block, epoch: int, where: str) -> PackedBatch:
        try:
            numbers = [self._category_numbers[word] for word in block.words.tolist()]
        except KeyError as error:
            raise DataError(f"{where} has drawings of {error}, which the manifest does not list") from error
        return PackedBatch(
            offsets=block.offsets,
            stroke_lengths=block.stroke_lengths.astype(np.int32),
            num_strokes=block.num_strokes.astype(np.int32),
            category=np.array(numbers, dtype=np.int32)[block.category],
            key_id=block.key_id,
            epoch=np.full(len(block), epoch, dtype=np.int64),
        )
