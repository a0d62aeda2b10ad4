"""Benchmark of reading sketches from shards."""

import contextlib
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping

from sgloc.bench.batches import open_batches, preparation
from sgloc.bench.options import StreamOptions
from sgloc.bench.report import Report
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import load_manifest
from sgloc.masking import mask
from sgloc.models.sketchgloc.config import Config
from sgloc.sketch.synthetic import CATEGORIES, write_sample

# Batches in the synthetic shards.
_SYNTHETIC_BATCHES = 20
# Sketches to time, and the most epochs of a small data set. An untimed warm-up comes first, a fraction of the timed
# sketches, so that the current block of every stream has been read.
_COUNTED, _MOST_EPOCHS = 2**19, 16
_WARM_UP_PART, _PREPARED_PART = 4, 8

# A function that opens a stream of batch sizes; the sketches of its warm-up; the sketches timed after that.
Way = tuple[Callable[[], Generator[int, None, None]], int, int]


def measure(options: StreamOptions, config: Config, report: Report) -> None:
    """Measure reading training batches: alone, with their preparation and, if `remote` is set, from a server."""
    with shards(options, config) as folder:
        measure_ways(options, config, report, folder, {})


@contextlib.contextmanager
def shards(options: StreamOptions, config: Config) -> Iterator[str]:
    """Yield the folder of the shards to measure on: the option's, or else a temporary synthetic one."""
    if options.data is not None:
        yield options.data
        return
    with tempfile.TemporaryDirectory(prefix="sgloc-bench-") as folder:
        number = -(-_SYNTHETIC_BATCHES * options.batch // len(CATEGORIES))
        write_sample(f"{folder}/npz", num_train=number, num_valid=1, num_test=0, seed=config.train.seed)
        build_shards(f"{folder}/npz", f"{folder}/shards", BuildOptions(licence="MIT; synthetic"))
        yield f"{folder}/shards"


def measure_ways(
    options: StreamOptions, config: Config, report: Report, folder: str, others: Mapping[str, Way]
) -> None:
    """Measure the stream and other ways to read the same drawings.

    The ways take turns, so that their ratios hold even on a shared machine.
    """
    manifest = load_manifest(folder)
    split, size = manifest.splits["train"], options.batch
    prepare = preparation(config, manifest)

    def batches(where: str, prepared: bool) -> Generator[int, None, None]:
        with contextlib.closing(open_batches(where, manifest, config, size)) as stream:
            for packed in stream:
                if prepared:
                    prepare(packed, report.device)
                yield len(packed)

    counted = min(_COUNTED, _MOST_EPOCHS * split.num_sketches)
    warm_up = counted // _WARM_UP_PART
    ways: dict[str, Way] = {
        "stream": (functools.partial(batches, folder, False), warm_up, counted),
        "stream and preparation": (functools.partial(batches, folder, True), size, counted // _PREPARED_PART),
        **others,
    }
    if options.remote is not None:
        ways["stream from the server"] = (functools.partial(batches, options.remote, False), warm_up, counted)
    report.settings = {
        "data": mask(options.data or "synthetic"),
        "server": mask(options.remote or "none"),
        "sketches": size,
        "threads": config.data.read_threads,
        "prefetch": config.data.prefetch,
        "repeats": options.repeats,
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            times[name].append(_time(*way))
    rates = {}
    for name, (_, _, number) in ways.items():
        wall, processor = zip(*times[name], strict=True)
        num_sketches = -(-number // size) * size
        num_points = round(num_sketches * split.num_points / split.num_sketches)
        rate = num_sketches / statistics.median(processor)
        report.add(name, wall, num_sketches, num_points, extra={"sketches_per_processor_second": rate})
        rates[name] = number / statistics.median(wall)
    ratios = {f"of {name}": rates["stream"] / rate for name, rate in rates.items() if name != "stream"}
    report.facts.append({"name": "rate of the stream as a multiple", **ratios})


def _time(open_way: Callable[[], Generator[int, None, None]], warm_up: int, counted: int) -> tuple[float, float]:
    """Return the wall-clock seconds, and the processor seconds of all threads, of a way after its warm-up."""
    with contextlib.closing(open_way()) as sizes:
        _consume(sizes, warm_up)
        wall, processor = time.perf_counter(), time.process_time()
        _consume(sizes, counted)
        return time.perf_counter() - wall, time.process_time() - processor


def _consume(sizes: Iterator[int], number: int) -> None:
    """Consume batches until they contain at least `number` sketches."""
    total = itertools.accumulate(sizes)
    while next(total) < number:
        pass
