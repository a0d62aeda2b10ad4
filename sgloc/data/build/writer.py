"""Writer of the shards of one split and part."""

import hashlib
import io
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from sgloc.data.block import ZSTD_MAGIC, pack_block
from sgloc.data.build.plan import BuildOptions
from sgloc.data.manifest import Moments, Shard, Split, add_counts
from sgloc.sketch.drawing import Drawing
from sgloc.storage import Storage


def pack_tar(blocks: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """Pack a shard's blocks into a tar file, as WebDataset's writer does; return it and the byte offset of each block.

    Apart from a block's name and size, all tar metadata is constant, so that equal drawings give equal bytes.
    """
    stream, offsets = io.BytesIO(), []
    with tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, block in enumerate(blocks):
            ending = "npz.zst" if block.startswith(ZSTD_MAGIC) else "npz"
            member = tarfile.TarInfo(f"{number:06d}.{ending}")
            member.size, member.mode, member.uname, member.gname = len(block), 0o444, "sgloc", "sgloc"
            offsets.append(stream.tell() + tarfile.BLOCKSIZE)
            tar.addfile(member, io.BytesIO(block))
    return stream.getvalue(), offsets


class SplitWriter:
    """Writer of drawings, in the order added, to blocks and shards; it buffers one shard in memory.

    Args:
        folder: folder to write to.
        split: "train", "valid" or "test".
        part: number of the part.
        options: build options.

    Attributes:
        categories: number of drawings added, by category.
        moments: moments of the drawings packed into blocks so far.
    """

    def __init__(self, folder: Storage, split: str, part: int, options: BuildOptions) -> None:
        self._folder, self._options = folder, options
        self._prefix = f"{split}-{part:05d}"
        self.categories: Counter[str] = Counter()
        self.moments = Moments()
        self._points: Counter[int] = Counter()
        self._strokes: Counter[int] = Counter()
        self._shards: list[Shard] = []
        # The pending shard: its blocks, the number of sketches in them, and the drawings of the pending block.
        self._blocks: list[bytes] = []
        self._num_sketches = 0
        self._drawings: list[Drawing] = []

    def add(self, drawing: Drawing) -> None:
        """Add a drawing."""
        self.categories[drawing.category] += 1
        self._drawings.append(drawing)
        if len(self._drawings) == self._options.block_size:
            self._pack()

    def finish(self) -> Split:
        """Write the pending drawings and return the completed split."""
        if self._drawings:
            self._pack()
        if self._blocks:
            self._write()
        categories, points, strokes = (
            add_counts([counts]) for counts in (self.categories, self._points, self._strokes)
        )
        return Split(categories, points, strokes, self._shards)

    def _pack(self) -> None:
        """Pack the pending drawings into a block; write the shard if it has no room for another block."""
        lengths = [len(drawing.stroke3) for drawing in self._drawings]
        rows = np.concatenate([drawing.stroke3 for drawing in self._drawings])
        starts = np.cumsum([0, *lengths[:-1]])
        self._points.update(lengths)
        self._strokes.update(np.add.reduceat(rows[:, 2], starts, dtype=np.int64).tolist())
        self.moments += Moments.of(rows[:, :2])
        self._blocks.append(pack_block(self._drawings, self._options.compression))
        self._num_sketches += len(self._drawings)
        self._drawings.clear()
        if self._num_sketches + self._options.block_size > self._options.sketches_per_shard:
            self._write()

    def _write(self) -> None:
        """Write the pending blocks as a shard."""
        content, offsets = pack_tar(self._blocks)
        name = f"{self._prefix}-{len(self._shards):05d}.tar"
        self._folder.write(name, [content])
        sha256 = hashlib.sha256(content).hexdigest()
        sizes, checksums = list(map(len, self._blocks)), list(map(zlib.crc32, self._blocks))
        self._shards.append(Shard(name, self._num_sketches, len(content), sha256, offsets, sizes, checksums))
        self._blocks.clear()
        self._num_sketches = 0
