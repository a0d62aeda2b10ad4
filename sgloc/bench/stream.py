"""How fast sketches come from shards."""

import contextlib
import functools
import itertools
import math
import statistics
import tempfile
from collections.abc import Iterator

from sgloc.bench.options import BenchOptions, open_batches, preparation, training_split
from sgloc.bench.report import Report
from sgloc.bench.timing import Clock
from sgloc.config import Config
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.data.shards import build_shards
from sgloc.sketch.synthetic import CATEGORIES, write_sample

# Of synthetic shards, drawn for the occasion.
_SYNTHETIC_BATCHES = 20
_MOST_SKETCHES = 65536


def bench_stream(options: BenchOptions, config: Config) -> Report:
    """Measure the training batches of an epoch, as they come and with their preparation; of a large data set, the
    epoch's first 65,536 sketches. Every repeat opens the shards anew; what the system keeps of them in memory stays.

    Args:
        options: what to measure on; without shards, a folder of synthetic ones is built for the time being.
        config: of the run whose preparation and prefetching are measured.

    Raises:
        SglocError: if the shards cannot be used.
    """
    with _shards(options, config) as (folder, manifest):
        return _measure(options, config, folder, manifest)


@contextlib.contextmanager
def _shards(options: BenchOptions, config: Config) -> Iterator[tuple[str, Manifest]]:
    if options.data is not None:
        yield options.data, load_manifest(options.data)
        return
    with tempfile.TemporaryDirectory(prefix="sgloc-bench-") as folder:
        number = -(-_SYNTHETIC_BATCHES * options.num_sketches // len(CATEGORIES))
        write_sample(f"{folder}/npz", num_train=number, num_valid=1, num_test=0, seed=config.train.seed)
        yield f"{folder}/shards", build_shards(f"{folder}/npz", f"{folder}/shards", licence="MIT; synthetic")


def _measure(options: BenchOptions, config: Config, folder: str, manifest: Manifest) -> Report:
    split = training_split(folder, manifest)
    num_batches = math.ceil(min(split.num_sketches, _MOST_SKETCHES) / options.num_sketches)
    num_sketches = num_batches * options.num_sketches
    megabytes = sum(shard.num_bytes for shard in split.shards) / split.num_sketches * num_sketches / 1e6
    prepare = preparation(config, manifest.scale)
    num_points = 0

    def stream(prepared: bool) -> None:
        nonlocal num_points
        num_points = 0
        with contextlib.closing(open_batches(folder, manifest, config, options.num_sketches)) as batches:
            for packed in itertools.islice(batches, num_batches):
                num_points += packed.num_points
                if prepared:
                    prepare(packed, options.device)

    settings = {
        "data": options.data or "synthetic",
        "sketches": options.num_sketches,
        "batches": num_batches,
        "prefetch": config.data.prefetch,
        "repeats": options.num_repeats,
    }
    report, clock = Report("stream", settings, options.device), Clock(options.device)
    for name, prepared in (("stream", False), ("stream and preparation", True)):
        # Not counted: it brings the shards into the system's memory.
        stream(prepared)
        seconds = [clock.time(functools.partial(stream, prepared)) for _ in range(options.num_repeats)]
        extra = {"megabytes_per_second": megabytes / statistics.median(seconds)}
        report.add(name, seconds, num_sketches, num_points, extra=extra)
    return report
