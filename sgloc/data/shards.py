"""Building shards: drawings in, WebDataset tar files and a manifest out (DESIGN contracts 7 and 8)."""

import difflib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import fsspec.core
import numpy as np
import webdataset

from sgloc.data.block import pack_block
from sgloc.data.manifest import FILE_NAME, SPLITS, Manifest, Shard, Source, Split
from sgloc.data.quickdraw import category_of_file, find_sources, read_drawings
from sgloc.errors import ConfigError, DataError
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.sketch.transform import MOST_OFFSET

QUICKDRAW_LICENCE = (
    "CC BY 4.0; The Quick, Draw! Dataset by Google, https://github.com/googlecreativelab/quickdraw-dataset"
)
SKETCHES_PER_BLOCK = 256
REJECTS_NAME = "rejects.ndjson"
_TAR_RECORD = 512
_SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}\.tar")
# METHOD 8: of 75,000 drawings of a category 2,500 validate and 2,500 test.
_SPLIT_PARTS = 30


def split_by_key(key_id: int) -> str:
    """The split of a drawing whose source has none: a hash of its key_id gives 1/30 to valid and 1/30 to test, so that
    a drawing never changes splits."""
    digest = hashlib.blake2b(key_id.to_bytes(8, "little"), digest_size=8).digest()
    part = int.from_bytes(digest, "little") * _SPLIT_PARTS >> 64
    return {0: "valid", 1: "test"}.get(part, "train")


class _Counted:
    """A stream that is written through, its bytes counted and hashed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.sha256, self.num_bytes = stream, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        self.num_bytes += len(content)
        return self.stream.write(content)


class _SplitWriter:
    """Writes one split's drawings, in the order given, into blocks and shards; holds one block in memory."""

    def __init__(
        self, file_system: Any, root: str, split: str, sketches_per_shard: int, category_numbers: dict[str, int]
    ) -> None:
        self.file_system, self.root, self.split = file_system, root, split
        self.sketches_per_shard, self.category_numbers = sketches_per_shard, category_numbers
        self.drawings: list[Drawing] = []
        self.shards: list[Shard] = []
        self.counts: Counter[str] = Counter()
        self.num_strokes = self.num_points = self.longest_points = self.longest_strokes = 0
        self._tar: webdataset.TarWriter | None = None

    def add(self, drawing: Drawing) -> None:
        self.drawings.append(drawing)
        self.counts[drawing.category] += 1
        num_points, num_strokes = len(drawing.stroke3), int(drawing.stroke3[:, 2].sum())
        self.num_points += num_points
        self.num_strokes += num_strokes
        self.longest_points = max(self.longest_points, num_points)
        self.longest_strokes = max(self.longest_strokes, num_strokes)
        if len(self.drawings) == SKETCHES_PER_BLOCK:
            self._write_block()

    def _write_block(self) -> None:
        if self._tar is None:
            self._name = f"{self.split}-{len(self.shards):05d}.tar"
            self._file = self.file_system.open(f"{self.root}/{self._name}", "wb")
            self._counted = _Counted(self._file)
            # All that a tar says of a file besides its content is fixed, so that equal drawings give equal bytes.
            self._tar = webdataset.TarWriter(self._counted, user="sgloc", group="sgloc", mtime=0, compress=False)
            self._sketches, self._position = 0, 0
            self._block_offsets: list[int] = []
            self._block_sizes: list[int] = []
        content = pack_block(self.drawings, self.category_numbers)
        self._tar.write({"__key__": f"{len(self._block_offsets):06d}", "npz": content})
        self._block_offsets.append(self._position + _TAR_RECORD)
        self._block_sizes.append(len(content))
        self._position += _TAR_RECORD + math.ceil(len(content) / _TAR_RECORD) * _TAR_RECORD
        self._sketches += len(self.drawings)
        self.drawings.clear()
        if self._sketches + SKETCHES_PER_BLOCK > self.sketches_per_shard:
            self._finish_shard()

    def _finish_shard(self) -> None:
        assert self._tar is not None
        self._tar.close()
        self._file.close()
        self._tar = None
        sha256 = self._counted.sha256.hexdigest()
        shard = Shard(
            self._name, self._sketches, self._counted.num_bytes, sha256, self._block_offsets, self._block_sizes
        )
        self.shards.append(shard)

    def finish(self) -> Split:
        if self.drawings:
            self._write_block()
        if self._tar is not None:
            self._finish_shard()
        per_category = {name: self.counts[name] for name in sorted(self.counts)}
        return Split(self.counts.total(), self.num_strokes, self.num_points, per_category, self.shards)


class _OffsetMoments:
    """Exact sums from which METHOD 1's scale is computed."""

    def __init__(self) -> None:
        self.count = self.sum = self.sum_of_squares = 0

    def add(self, drawing: Drawing) -> None:
        offsets = np.clip(drawing.stroke3[:, :2].astype(np.int64), -MOST_OFFSET, MOST_OFFSET)
        self.count += offsets.size
        self.sum += int(offsets.sum())
        self.sum_of_squares += int(np.square(offsets).sum())

    def standard_deviation(self) -> float:
        return math.sqrt(self.count * self.sum_of_squares - self.sum**2) / self.count


def _wanted_files(files: list[str], categories: set[str] | None) -> list[str]:
    """The files named after the wanted categories when each has one; else all, since a file may hold any word."""
    if categories is None:
        return files
    known = {category_of_file(path) for path in files}
    if all(path.endswith(".npz") for path in files):
        # Nothing but their names says what they hold, so a category that is not among them need not be looked for.
        _refuse_unknown_categories(categories, known, known)
    return [path for path in files if category_of_file(path) in categories] if categories <= known else files


def _refuse_unknown_categories(wanted: Iterable[str], taken: Iterable[str], known: set[str]) -> None:
    for name in sorted(set(wanted) - set(taken)):
        near = difflib.get_close_matches(name, known - {name}, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"no drawing of category {name!r} is in the source{hint}")


def _refuse_or_clear(file_system: Any, root: str, folder: str, overwrite: bool) -> None:
    """Make room: for a finished build's successor only when asked, for an unfinished one's always."""
    if not file_system.exists(root):
        return
    names = {_name(path) for path in file_system.ls(root, detail=False)}
    finished = FILE_NAME in names
    if finished and not overwrite:
        raise DataError(f"{folder} already holds shards; give another --out, or --overwrite to build them again")
    shards = sorted(filter(_SHARD_NAME.fullmatch, names))
    if shards and not (finished or REJECTS_NAME in names):
        raise DataError(f"{folder} holds {shards[0]}, which `sgloc shard` did not write; give another --out")
    # The manifest goes first: without it the folder is not complete, whatever happens next.
    for name in [FILE_NAME] * finished + shards:
        file_system.rm(f"{root}/{name}")


def build_shards(
    source: str | Sequence[str],
    folder: str,
    *,
    categories: Sequence[str] | None = None,
    sketches_per_shard: int = 16384,
    licence: str = QUICKDRAW_LICENCE,
    overwrite: bool = False,
    progress: Callable[[int, int, int, int], None] = lambda *_: None,
) -> Manifest:
    """Pack drawings into shards; the same drawings in the same files give the same bytes.

    Args:
        source: files, a folder, a glob or a URL of simplified ndjson or sketch-rnn npz files.
        folder: folder or URL to write to. Its manifest.json is written last.
        categories: take only drawings of these; None takes all.
        sketches_per_shard: most sketches in a shard; rounded down to whole blocks, but at least one.
        licence: of the drawings, with attribution; copied into the manifest.
        overwrite: replace shards that are there already.
        progress: called with files done, files in all, drawings taken and drawings rejected.

    Returns:
        The manifest that was written.

    Raises:
        ConfigError: if sketches_per_shard is below 1.
        DataError: if a source cannot be read as what it claims to be, a category does not occur, nothing is left to
            train on, or shards are there already.
    """
    if sketches_per_shard < 1:
        raise ConfigError(f"sketches_per_shard must be at least 1, not {sketches_per_shard}")
    files = find_sources(source)
    wanted = None if categories is None else set(categories)
    if wanted is not None and not wanted:
        raise DataError("no category was given; name at least one, or leave the option out to take all")
    chosen = _wanted_files(files, wanted)
    file_system, root = fsspec.core.url_to_fs(folder)
    try:
        _refuse_or_clear(file_system, root, folder, overwrite)
        file_system.makedirs(root, exist_ok=True)
        build = _Build(file_system, root, sketches_per_shard, wanted)
        with file_system.open(f"{root}/{REJECTS_NAME}", "wb") as rejects:
            for number, path in enumerate(chosen):
                for _ in build.read(path, rejects):
                    progress(number, len(chosen), build.num_accepted, build.rejected.total())
        progress(len(chosen), len(chosen), build.num_accepted, build.rejected.total())
        known = build.seen | {category_of_file(path) for path in files}
        _refuse_unknown_categories(wanted or (), build.category_numbers, known)
        manifest = build.finish(licence)
        with file_system.open(f"{root}/{FILE_NAME}", "wb") as stream:
            stream.write(manifest.to_json().encode())
    except OSError as error:
        raise DataError(f"cannot write shards to {folder} ({error}); give a folder that can be written") from error
    return manifest


class _Build:
    """The state of one build: three split writers and what is known of all drawings so far."""

    def __init__(self, file_system: Any, root: str, sketches_per_shard: int, wanted: set[str] | None) -> None:
        self.category_numbers: dict[str, int] = {}
        self.wanted = wanted
        self.seen: set[str] = set()
        arguments = (sketches_per_shard, self.category_numbers)
        self.writers = {split: _SplitWriter(file_system, root, split, *arguments) for split in SPLITS}
        self.moments = _OffsetMoments()
        self.sources: list[Source] = []
        self.rejected: Counter[str] = Counter()
        self.num_accepted = self.num_skipped = 0

    def read(self, path: str, rejects: IO[bytes]) -> Iterator[None]:
        """Take one file's drawings; yields after each so that progress can be shown."""
        before = self._counts()
        for drawing in read_drawings(path):
            if isinstance(drawing, Reject):
                self.rejected[drawing.reason] += 1
                fields = {
                    "source": _name(drawing.source),
                    "place": drawing.place,
                    "reason": drawing.reason,
                    "detail": drawing.detail,
                }
                rejects.write((json.dumps(fields, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))
            elif self.wanted is None or drawing.category in self.wanted:
                self._take(drawing)
            else:
                self.seen.add(drawing.category)
                self.num_skipped += 1
            yield
        self.sources.append(
            Source(_name(path), *(now - then for now, then in zip(self._counts(), before, strict=True)))
        )

    def _counts(self) -> tuple[int, int, int]:
        return self.num_accepted, self.rejected.total(), self.num_skipped

    def _take(self, drawing: Drawing) -> None:
        self.num_accepted += 1
        self.category_numbers.setdefault(drawing.category, len(self.category_numbers))
        split = drawing.split or split_by_key(drawing.key_id)
        self.writers[split].add(drawing)
        if split == "train":
            self.moments.add(drawing)

    def finish(self, licence: str) -> Manifest:
        """Finish all shards and say what is in them."""
        if self.moments.count == 0:
            taken, rejected, _ = self._counts()
            raise DataError(
                f"none of the {taken} drawings taken is in the training split ({rejected} were rejected); "
                "give more drawings"
            )
        scale = self.moments.standard_deviation()
        if scale == 0:
            raise DataError(
                "all offsets of the training drawings are equal, so they cannot be normalised; give real drawings"
            )
        splits = {name: writer.finish() for name, writer in self.writers.items()}
        return Manifest(
            categories=list(self.category_numbers),
            scale=scale,
            longest_points=max(writer.longest_points for writer in self.writers.values()),
            longest_strokes=max(writer.longest_strokes for writer in self.writers.values()),
            sketches_per_block=SKETCHES_PER_BLOCK,
            splits=splits,
            num_read=sum(self._counts()),
            num_skipped=self.num_skipped,
            rejected={reason: self.rejected[reason] for reason in sorted(self.rejected)},
            sources=self.sources,
            licence=licence,
        )


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
