"""Speed of reading sketches from shards, compared with a plain webdataset that stores each sketch as its own member."""

import contextlib
import io
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import webdataset

from benchmarks.study import run_study
from sgloc import dist
from sgloc.bench.options import StreamOptions
from sgloc.bench.report import Report
from sgloc.bench.stream import measure_ways, shards
from sgloc.data.batch import PackedBatch
from sgloc.data.manifest import load_manifest
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.models.sketchgloc.config import Config
from sgloc.sketch.drawing import Int16Array

NAME = "webdataset, a sketch a member"
_MEMBERS, _MEMBERS_IN_TAR = 20_000, 2_000


def study_webdataset(options: StreamOptions, config: Config) -> Report:
    """Measure the stream of training batches and, in alternation, a plain webdataset of the same drawings.

    Args:
        options: options of the measurement.
        config: configuration of the run whose preparation and prefetching are measured.

    Raises:
        SglocError: if the shards cannot be used.
    """
    report = Report("stream", dist.select_device(options.device, dist.resolve_placement({})))
    with shards(options, config) as folder, _one_sketch_a_member(folder) as (members, count):

        def plain() -> Generator[int, None, None]:
            while True:
                pipeline = webdataset.WebDataset(members, shardshuffle=False, empty_check=False)
                for _, lengths in pipeline.decode().to_tuple("npy").batched(options.batch, collation_fn=_ragged):
                    yield len(lengths)

        measure_ways(options, config, report, folder, {NAME: (plain, options.batch, count)})
    return report


@contextlib.contextmanager
def _one_sketch_a_member(folder: str) -> Iterator[tuple[list[str], int]]:
    """Yield tars of the first drawings, one drawing per member as in a plain webdataset, and the number of drawings."""
    reader = ShardReader(folder, load_manifest(folder), "train")
    (packed,) = fixed_batches(reader, np.arange(min(reader.num_sketches, _MEMBERS)), batch_size=_MEMBERS)
    with tempfile.TemporaryDirectory(prefix="sgloc-bench-") as target:
        paths = []
        for start in range(0, len(packed), _MEMBERS_IN_TAR):
            paths.append(str(Path(target, f"{start:06d}.tar")))
            with webdataset.TarWriter(paths[-1]) as tar:
                for number in range(start, min(start + _MEMBERS_IN_TAR, len(packed))):
                    content = io.BytesIO()
                    np.save(content, _stroke3(packed.part(number, number + 1)))
                    tar.write({"__key__": f"{number:09d}", "npy": content.getvalue()})
        yield paths, len(packed)


def _stroke3(sketch: PackedBatch) -> Int16Array:
    rows = np.zeros((sketch.num_points, 3), dtype=np.int16)
    rows[:, :2] = sketch.offsets
    rows[np.cumsum(sketch.stroke_lengths) - 1, 2] = 1
    return rows


def _ragged(sketches: list[tuple[Int16Array]]) -> tuple[Int16Array, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Collate with the least work a plain pipeline needs: flat rows, and the number of rows of each sketch."""
    rows = [sketch for (sketch,) in sketches]
    return np.concatenate(rows), np.array([len(sketch) for sketch in rows])


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("webdataset", study_webdataset, StreamOptions, arguments)
