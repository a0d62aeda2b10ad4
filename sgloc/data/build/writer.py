"""Drawings of one split and part, packed into shards."""

import hashlib
import tarfile
import zlib
from typing import Self

import numpy as np

from sgloc.data.block import pack_block
from sgloc.data.build.plan import BuildOptions
from sgloc.data.manifest import Contents, Shard, Split
from sgloc.sketch.drawing import Drawing
from sgloc.storage import NewFile, Storage

# A tar file consists of records, and its end fills up a block of them.
_TAR_RECORD, _TAR_BLOCK = 512, 20 * 512
_ENDINGS = {"none": "npz", "zstd": "npz.zst"}


class _Tar:
    """One shard while it is written."""

    def __init__(self, file: NewFile, name: str, ending: str) -> None:
        self.file, self._name, self._ending = file, name, ending
        self._sha256 = hashlib.sha256()
        self._num_bytes = self.num_sketches = 0
        # Of each its offset, size and checksum.
        self._blocks: list[tuple[int, int, int]] = []

    def add(self, content: bytes, num_sketches: int) -> None:
        """Append a block."""
        self._write(_header(f"{len(self._blocks):06d}.{self._ending}", len(content)))
        self._blocks.append((self._num_bytes, len(content), zlib.crc32(content)))
        self.num_sketches += num_sketches
        self._write(content)
        self._write(bytes(-len(content) % _TAR_RECORD))

    def finish(self) -> Shard:
        """Write the tar's end; only then it has its name."""
        self._write(bytes(2 * _TAR_RECORD))
        self._write(bytes(-self._num_bytes % _TAR_BLOCK))
        self.file.finish()
        offsets, sizes, checksums = map(list, zip(*self._blocks, strict=True))
        return Shard(
            self._name, self.num_sketches, self._num_bytes, self._sha256.hexdigest(), offsets, sizes, checksums
        )

    def _write(self, content: bytes) -> None:
        self._sha256.update(content)
        self._num_bytes += len(content)
        self.file.write(content)


def _header(name: str, num_bytes: int) -> bytes:
    """The record before a file of a tar, as WebDataset's own writer makes it.

    All that it says of the file besides its name and size is fixed, so that equal drawings give equal bytes.
    """
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uname, member.gname = num_bytes, 0o444, "sgloc", "sgloc"
    return member.tobuf(tarfile.USTAR_FORMAT)


class SplitWriter:
    """Writes drawings, in the order given, into blocks and shards; holds one block in memory.

    The context ends with the last shard written, or, left by an exception, without the one that was begun.

    Args:
        folder: to write to.
        split: "train", "valid" or "test".
        part: number of the part.
        options: of the build.

    Attributes:
        contents: the drawings taken; lengths and moments only of those that are in a block.
    """

    def __init__(self, folder: Storage, split: str, part: int, options: BuildOptions) -> None:
        self._folder, self._options = folder, options
        self._prefix = f"{split}-{part:05d}"
        self._drawings: list[Drawing] = []
        self._shards: list[Shard] = []
        self.contents = Contents()
        self._tar: _Tar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._drawings:
                self._write_block()
            if kind is None and self._tar is not None:
                self._finish_shard(self._tar)
        finally:
            if self._tar is not None:
                self._tar.file.discard()

    def add(self, drawing: Drawing) -> None:
        """Take a drawing."""
        self.contents.categories[drawing.category] += 1
        self._drawings.append(drawing)
        if len(self._drawings) == self._options.block_size:
            self._write_block()

    def split(self) -> Split:
        """What was written, when the context has ended."""
        return self.contents.split(self._shards)

    def _write_block(self) -> None:
        tar = self._tar or self._begin_shard()
        content = pack_block(self._drawings, self._options.compression)
        tar.add(content, len(self._drawings))
        self._count()
        self._drawings.clear()
        if tar.num_sketches + self._options.block_size > self._options.sketches_per_shard:
            self._finish_shard(tar)

    def _count(self) -> None:
        """Add up the block's drawings, all at once."""
        lengths = [len(drawing.stroke3) for drawing in self._drawings]
        rows = np.concatenate([drawing.stroke3 for drawing in self._drawings])
        starts = np.cumsum([0, *lengths[:-1]])
        num_strokes = np.add.reduceat(rows[:, 2], starts, dtype=np.int64)
        self.contents.count(rows[:, :2], lengths, num_strokes.tolist())

    def _begin_shard(self) -> _Tar:
        name = f"{self._prefix}-{len(self._shards):05d}.tar"
        self._tar = _Tar(self._folder.create(name), name, _ENDINGS[self._options.compression])
        return self._tar

    def _finish_shard(self, tar: _Tar) -> None:
        self._shards.append(tar.finish())
        self._tar = None
