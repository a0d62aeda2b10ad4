"""How fast sketches come from shards, beside a plain pipeline of one sketch a member over the same drawings."""

import contextlib
import functools
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import numpy as np
import webdataset

from sgloc.bench.options import BenchOptions, open_batches, preparation, training_split
from sgloc.bench.report import Report
from sgloc.config import Config
from sgloc.data.batch import PackedBatch
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.data.reader import ShardReader
from sgloc.sketch.drawing import Int16Array
from sgloc.sketch.synthetic import CATEGORIES, write_sample

# Of synthetic shards, drawn for the occasion.
_SYNTHETIC_BATCHES = 20
# Sketches that are counted, but of a small data set at most so many epochs; and before them, so that the blocks that
# all streams are in are read, a part that is not.
_COUNTED, _MOST_EPOCHS = 2**19, 16
_WARM_UP_PART, _PREPARED_PART = 4, 8
_MEMBERS, _MEMBERS_IN_TAR = 20_000, 2_000

# Opens a stream that gives the sizes of its batches; how many sketches are not counted at its start, and then are.
Way = tuple[Callable[[], Generator[int, None, None]], int, int]


def bench_stream(options: BenchOptions, config: Config) -> Report:
    """Measure training batches as they come, the same with their preparation, the same from a server where one is
    named, and one sketch a member through webdataset. All in turn, so that ratios hold on a machine that others use.

    Args:
        options: what to measure on; without shards, a folder of synthetic ones is built for the time being.
        config: of the run whose preparation and prefetching are measured.

    Raises:
        SglocError: if the shards cannot be used.
    """
    with contextlib.ExitStack() as stack:
        folder, manifest = stack.enter_context(_shards(options, config))
        training_split(folder, manifest)
        members = stack.enter_context(_one_sketch_a_member(folder, manifest))
        return _measure(options, config, folder, manifest, members)


@contextlib.contextmanager
def _shards(options: BenchOptions, config: Config) -> Iterator[tuple[str, Manifest]]:
    if options.data is not None:
        yield options.data, load_manifest(options.data)
        return
    with tempfile.TemporaryDirectory(prefix="sgloc-bench-") as folder:
        number = -(-_SYNTHETIC_BATCHES * options.num_sketches // len(CATEGORIES))
        write_sample(f"{folder}/npz", num_train=number, num_valid=1, num_test=0, seed=config.train.seed)
        yield (
            f"{folder}/shards",
            build_shards(f"{folder}/npz", f"{folder}/shards", BuildOptions(licence="MIT; synthetic")),
        )


@contextlib.contextmanager
def _one_sketch_a_member(folder: str, manifest: Manifest) -> Iterator[list[str]]:
    """Tars of the first drawings, each a member of its own, as a plain webdataset has them."""
    reader = ShardReader(folder, manifest, "train")
    packed = reader.read(np.arange(min(reader.num_sketches, _MEMBERS)), np.zeros(1, dtype=np.int64))
    with tempfile.TemporaryDirectory(prefix="sgloc-bench-") as target:
        paths = []
        for start in range(0, len(packed), _MEMBERS_IN_TAR):
            paths.append(str(Path(target, f"{start:06d}.tar")))
            with webdataset.TarWriter(paths[-1]) as tar:
                for number in range(start, min(start + _MEMBERS_IN_TAR, len(packed))):
                    content = io.BytesIO()
                    np.save(content, _stroke3(packed.part(number, number + 1)))
                    tar.write({"__key__": f"{number:09d}", "npy": content.getvalue()})
        yield paths


def _stroke3(sketch: PackedBatch) -> Int16Array:
    rows = np.zeros((sketch.num_points, 3), dtype=np.int16)
    rows[:, :2] = sketch.offsets
    rows[np.cumsum(sketch.stroke_lengths) - 1, 2] = 1
    return rows


def _ragged(sketches: list[tuple[Int16Array]]) -> tuple[Int16Array, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The least that a plain pipeline does to a batch: flat rows, and how many are whose."""
    rows = [sketch for (sketch,) in sketches]
    return np.concatenate(rows), np.array([len(sketch) for sketch in rows])


def _measure(options: BenchOptions, config: Config, folder: str, manifest: Manifest, members: list[str]) -> Report:
    size, split = options.num_sketches, training_split(folder, manifest)
    points_in_sketch = split.num_points / split.num_sketches
    prepare = preparation(config, manifest.scale)

    def batches(where: str, prepared: bool) -> Generator[int, None, None]:
        with contextlib.closing(open_batches(where, manifest, config, size)) as stream:
            for packed in stream:
                if prepared:
                    prepare(packed, options.device)
                yield len(packed)

    def plain() -> Generator[int, None, None]:
        while True:
            pipeline = webdataset.WebDataset(members, shardshuffle=False, empty_check=False)
            pipeline = pipeline.decode().to_tuple("npy").batched(size, collation_fn=_ragged)
            for _, lengths in pipeline:
                yield len(lengths)

    counted = min(_COUNTED, _MOST_EPOCHS * split.num_sketches)
    warm_up, num_prepared = counted // _WARM_UP_PART, counted // _PREPARED_PART
    ways: dict[str, Way] = {
        "stream": (functools.partial(batches, folder, False), warm_up, counted),
        "stream and preparation": (functools.partial(batches, folder, True), size, num_prepared),
        "webdataset, a sketch a member": (plain, size, min(_MEMBERS, split.num_sketches)),
    }
    if options.remote is not None:
        ways["stream from the server"] = (functools.partial(batches, options.remote, False), warm_up, counted)
    settings = {
        "data": options.data or "synthetic",
        "server": options.remote or "none",
        "sketches": size,
        "threads": config.data.read_threads,
        "prefetch": config.data.prefetch,
        "repeats": options.num_repeats,
    }
    report = Report("stream", settings, options.device)
    times = _time_in_turn(ways, options.num_repeats)
    for name, (wall, processor) in times.items():
        num_sketches = -(-ways[name][2] // size) * size
        extra = {"sketches_per_processor_second": num_sketches / statistics.median(processor)}
        report.add(name, wall, num_sketches, round(num_sketches * points_in_sketch), extra=extra)
    rates = {name: ways[name][2] / statistics.median(wall) for name, (wall, _) in times.items()}
    ratios = {f"of {name}": rates["stream"] / rate for name, rate in rates.items() if name != "stream"}
    report.facts.append({"name": "rate of the stream as a multiple", **ratios})
    return report


def _time_in_turn(ways: Mapping[str, Way], num_repeats: int) -> dict[str, tuple[list[float], list[float]]]:
    """Wall and processor seconds, of all threads, of each way in each repeat, after its warm-up."""
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    for _ in range(num_repeats):
        for name, (open_way, warm_up, counted) in ways.items():
            with contextlib.closing(open_way()) as sizes:
                _consume(sizes, warm_up)
                start, start_of_processor = time.perf_counter(), time.process_time()
                _consume(sizes, counted)
                times[name][0].append(time.perf_counter() - start)
                times[name][1].append(time.process_time() - start_of_processor)
    return times


def _consume(sizes: Iterator[int], number: int) -> None:
    """Take batches until at least so many sketches have come."""
    total = itertools.accumulate(sizes)
    while next(total) < number:
        pass
