"""Helpers shared by the tests of shard building."""

import dataclasses
from pathlib import Path

import numpy as np

from sgloc.data.batch import PackedBatch, concatenate
from sgloc.data.block import IntArray
from sgloc.data.manifest import Manifest
from sgloc.data.reader import ShardReader
from sgloc.sketch.drawing import Drawing
from tests.drawings import make_drawings, stroke3s_of, write_ndjson

Sketch = tuple[str, int, list[list[int]]]


def read_block(reader: ShardReader, block: int) -> PackedBatch:
    """Return the sketches of a block in stored order."""
    return reader.unpack(reader.fetch_bytes(block), block, 0)


def read_sketches(reader: ShardReader, sketches: IntArray, epoch: IntArray | None = None) -> PackedBatch:
    """Return the sketches with these numbers, int64 [n], counted in shard order.

    Reads every block. Each sketch carries the epoch given for it in `epoch`, int64 [n], or epoch 0.
    """
    everything = concatenate([read_block(reader, block) for block in range(reader.num_blocks)])
    return dataclasses.replace(everything.take(sketches), epoch=np.zeros_like(sketches) if epoch is None else epoch)


def read_back(folder: str, manifest: Manifest, split: str) -> list[Sketch]:
    """Return category, key_id and stroke-3 rows of every drawing of a split, in shard order."""
    numbers = np.arange(manifest.splits[split].num_sketches)
    if len(numbers) == 0:
        return []
    packed = read_sketches(ShardReader(folder, manifest, split), numbers)
    categories = [manifest.categories[number] for number in packed.category.tolist()]
    strokes = [rows.tolist() for rows in stroke3s_of(packed)]
    return list(zip(categories, packed.key_id.tolist(), strokes, strict=True))


def told(drawings: list[Drawing]) -> list[Sketch]:
    """Return the same tuples as `read_back` for the given drawings."""
    return [(drawing.category, drawing.key_id, drawing.stroke3.tolist()) for drawing in drawings]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in the folder, keyed by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write_categories(folder: Path, number: int, per_category: int) -> None:
    """Write simplified ndjson files for `number` categories, each ending in one line that is not a drawing."""
    folder.mkdir(exist_ok=True)
    for index in range(number):
        name = f"thing {index}"
        path = folder / f"{name}.ndjson"
        write_ndjson(path, make_drawings(per_category, [name], seed=index, first_key_id=1 + index * 10**6))
        with path.open("a") as stream:
            stream.write("not a drawing\n")
