"""Proof of scale: write a data set of any size, build its shards, and stream one epoch, all in constant memory."""

import contextlib
import json
import multiprocessing
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.quickdraw import category_sizes, numbers_of, write_category
from benchmarks.study import number_of_sketches, run_study
from benchmarks.tables import Table, TableReport
from sgloc.bench.report import Record
from sgloc.config import Options, option
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.formats.sources import CATEGORIES
from sgloc.data.manifest import SPLITS, Manifest, load_manifest
from sgloc.data.order import Order
from sgloc.data.reader import ShardReader
from sgloc.data.stream import Share, training_batches
from sgloc.errors import ConfigError, DataError
from sgloc.memory import keep_freed_memory
from sgloc.models.sketchgloc.config import Config
from sgloc.strict_json import to_json

_STATE_NAME = "scale.json"
_LICENCE = "MIT; synthetic"
# Seconds between two samples of the memory in use, and between two records of a build's progress.
_BETWEEN_LOOKS, _BETWEEN_NOTES = 0.2, 5.0
_HEADINGS = {
    "phase": ("", "s"),
    "sketches": ("sketches", ",d"),
    "seconds": ("seconds", ",.0f"),
    "sketches_per_second": ("sketches/s", ",.0f"),
    "sketches_per_processor_second": ("per CPU second", ",.0f"),
    "mib_in_first_tenth": ("MiB, first tenth", ",.0f"),
    "mib_in_last_tenth": ("MiB, last tenth", ",.0f"),
}


@dataclass(frozen=True)
class ScaleOptions(Options):
    """What to build, where, and with how many processes."""

    sketches: int = number_of_sketches()
    """Size of the synthetic QuickDraw."""
    folder: str | None = None
    """Local folder to build in (required)."""
    workers: int = option(1, at_least=0)
    """Number of build processes; 0: one per core."""
    batch: int = option(1024, at_least=1)
    """Sketches per batch of the stream."""


def study_scale(options: ScaleOptions, config: Config) -> TableReport:
    """Write drawings of QuickDraw's lengths, build their shards, and check that one epoch visits each exactly once.

    Finished work stays in the folder, so that a killed command resumes where it stopped, except for the stream.

    Args:
        options: number of sketches, folder, and number of processes.
        config: configuration of the run whose seed and prefetching are measured.

    Raises:
        ConfigError: if `folder` is not set.
        DataError: if the folder was created with other settings, or the epoch does not visit each sketch once.
    """
    if options.folder is None:
        raise ConfigError("folder is not set; choose a folder for the drawings and their shards")
    keep_freed_memory()
    state = _State.open(Path(options.folder), {"sketches": options.sketches, "seed": config.train.seed})
    _draw(state, options, config.train.seed)
    if "manifest" not in state.phase("build"):
        _build(state, options)
    shards = str(state.folder / "shards")
    manifest = load_manifest(shards)
    streamed = _stream(shards, manifest, options, config)
    phases = [
        _with_rate({"phase": "draw", **state.phase("draw")}),
        _with_rate({"phase": "build", **state.phase("build")}),
        _with_rate({"phase": "stream", **streamed}),
    ]
    settings = {
        "sketches": options.sketches,
        "categories": len(manifest.categories),
        "shards": len(manifest.shards),
        "workers": options.workers,
        "batch": options.batch,
        "seed": config.train.seed,
        "mean_points": sum(split.num_points for split in manifest.splits.values()) / options.sketches,
        "mean_strokes": sum(split.num_strokes for split in manifest.splits.values()) / options.sketches,
    }
    return TableReport("scale", settings, [Table("phase", _HEADINGS, phases)], [_storage(manifest), _visited(manifest)])


def _with_rate(record: Record) -> Record:
    return {**record, "sketches_per_second": record["sketches"] / record["seconds"]}


@dataclass
class _State:
    """Progress of the study, stored in a file in its folder.

    Attributes:
        folder: folder of the study.
        settings: settings that the stored results depend on.
        phases: record of each phase, keyed by the phase's name.
    """

    folder: Path
    settings: Record
    phases: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, settings: Record) -> "_State":
        """Start a study, or resume the one in the folder.

        Raises:
            DataError: if the folder was created with other settings.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            known = json.loads((folder / _STATE_NAME).read_text())
        except FileNotFoundError:
            return cls(folder, settings)
        if known["settings"] != settings:
            raise DataError(f"{folder} was created with {known['settings']}; use these again, or another folder")
        return cls(folder, settings, known["phases"])

    def phase(self, name: str) -> Record:
        """Return the record of a phase, empty before the phase has started."""
        return self.phases.get(name, {})

    def note(self, name: str, record: Record) -> None:
        """Store the current record of a phase."""
        self.phases[name] = record
        partial = self.folder / f"{_STATE_NAME}.partial"
        partial.write_text(to_json({"settings": self.settings, "phases": self.phases}))
        partial.rename(self.folder / _STATE_NAME)


class _Memory:
    """Peak memory in each tenth of the work, in MiB, sampled at intervals."""

    def __init__(self, tenths: list[float] | None = None) -> None:
        self.tenths = tenths or [0.0] * 10
        self._next_look = 0.0

    def look(self, done: float) -> None:
        """Sample the memory in use, unless the last sample is recent.

        The largest child process counts or, if there is none, this process.

        Args:
            done: share of the work that is done.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _BETWEEN_LOOKS
        pids = [process.pid for process in multiprocessing.active_children()] or [os.getpid()]
        tenth = min(int(10 * done), 9)
        self.tenths[tenth] = max([self.tenths[tenth], *map(_resident_mib, pids)])

    @property
    def record(self) -> Record:
        """The peaks of all tenths, 0 for those without a sample, and the first and the last nonzero one."""
        seen = [mib for mib in self.tenths if mib > 0] or [0.0]
        return {"mib_by_tenth": self.tenths, "mib_in_first_tenth": seen[0], "mib_in_last_tenth": seen[-1]}


def _resident_mib(pid: int | None) -> float:
    """Return the resident memory of a process in MiB; 0 if it has ended."""
    with contextlib.suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def _draw(state: _State, options: ScaleOptions, seed: int) -> None:
    """Write the categories that are not written yet."""
    source = state.folder / "source"
    source.mkdir(exist_ok=True)
    before = state.phase("draw")
    memory, start = _Memory(before.get("mib_by_tenth")), time.perf_counter() - before.get("seconds", 0)
    number = drawn = before.get("sketches", 0)
    ends = np.cumsum(category_sizes(options.sketches)).tolist()
    for category, end in zip(CATEGORIES, ends, strict=True):
        if end <= drawn:
            continue
        write_category(source / f"{category}.bin", range(number, end), seed)
        memory.look((number + 1) / options.sketches)
        number = end
        state.note("draw", {"sketches": number, "seconds": time.perf_counter() - start, **memory.record})


def _build(state: _State, options: ScaleOptions) -> None:
    """Build the missing shards; the time of killed attempts counts too."""
    before = state.phase("build")
    memory, start = _Memory(before.get("mib_by_tenth")), time.perf_counter() - before.get("seconds", 0)
    next_note = time.monotonic() + _BETWEEN_NOTES

    def progress(_built: int, _parts: int, num_read: int, _rejected: int) -> None:
        nonlocal next_note
        # The workers do not exist before the first drawing has been read.
        if num_read > 0:
            memory.look(num_read / options.sketches)
        if time.monotonic() > next_note:
            next_note = time.monotonic() + _BETWEEN_NOTES
            state.note("build", {"sketches": num_read, "seconds": time.perf_counter() - start, **memory.record})

    manifest = build_shards(
        str(state.folder / "source"),
        str(state.folder / "shards"),
        BuildOptions(per_category=0, licence=_LICENCE),
        num_workers=options.workers,
        progress=progress,
    )
    seconds = time.perf_counter() - start
    record = {"sketches": manifest.num_accepted, "seconds": seconds, **memory.record, "manifest": manifest.identity}
    state.note("build", record)


class Visits:
    """Bitmap of the visited sketches, out of n numbered ones.

    Args:
        num_sketches: n.
    """

    def __init__(self, num_sketches: int) -> None:
        self.num_sketches, self.count, self.sum = num_sketches, 0, 0
        self._bits = np.zeros(-(-num_sketches // 8), dtype=np.uint8)

    def add(self, numbers: npt.NDArray[np.uint64]) -> None:
        """Record visits, given the sketches' numbers, uint64 [n].

        Raises:
            DataError: if a number is out of range.
        """
        if len(numbers) > 0 and numbers.max() >= self.num_sketches:
            raise DataError(f"sketch {numbers.max()} was visited, but there are only {self.num_sketches}")
        np.bitwise_or.at(self._bits, numbers >> np.uint64(3), np.uint8(1) << (numbers & np.uint64(7)).astype(np.uint8))
        self.count += len(numbers)
        self.sum += int(numbers.sum())

    @property
    def num_visited(self) -> int:
        """Number of sketches visited at least once."""
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def check(self) -> None:
        """Check that each sketch was visited exactly once.

        Raises:
            DataError: if one was missed or visited twice.
        """
        total = self.num_sketches
        if (self.num_visited, self.count, self.sum) != (total, total, total * (total - 1) // 2):
            raise DataError(
                f"{self.num_visited} of {total} sketches were visited, in {self.count} visits: some are missing or "
                "repeated; build the shards again, and if that does not help, report a bug"
            )


def _stream(shards: str, manifest: Manifest, options: ScaleOptions, config: Config) -> Record:
    """Stream the first epoch and record the visited sketches; then read the other splits for the remaining ones."""
    reader = ShardReader(shards, manifest, "train")
    order = Order.of_training(manifest, config.train.seed)
    visits, memory = Visits(options.sketches), _Memory()
    batches = training_batches(
        reader,
        order,
        Share(options.batch),
        prefetch=config.data.prefetch,
        num_threads=config.data.read_threads,
    )
    start, start_of_processor = time.perf_counter(), time.process_time()
    with contextlib.closing(batches):
        while visits.count < order.num_sketches:
            packed = next(batches)
            # The last batch reaches into the second epoch.
            visits.add(numbers_of(packed.key_id[packed.epoch == 0]))
            memory.look((visits.count - 1) / order.num_sketches)
    seconds, of_processor = time.perf_counter() - start, time.process_time() - start_of_processor
    for split in SPLITS[1:]:
        if manifest.splits[split].num_sketches > 0:
            other = ShardReader(shards, manifest, split)
            for block in range(other.num_blocks):
                visits.add(numbers_of(other.unpack(other.fetch_bytes(block), block, 0).key_id))
    visits.check()
    return {
        "sketches": order.num_sketches,
        "seconds": seconds,
        "sketches_per_processor_second": order.num_sketches / of_processor,
        **memory.record,
    }


def _storage(manifest: Manifest) -> tuple[str, Record]:
    """Report the size of the shards, relative to the bare offsets."""
    num_bytes = sum(shard.num_bytes for shard in manifest.shards)
    bare = sum(split.num_points for split in manifest.splits.values()) * 2 * np.dtype(np.int16).itemsize
    record = {"bytes": num_bytes, "bytes_per_sketch": num_bytes / manifest.num_accepted, "of_bare": num_bytes / bare}
    sentence = (
        f"storage: {num_bytes / 1e9:,.3g} GB, {record['bytes_per_sketch']:.1f} bytes per sketch, "
        f"{record['of_bare']:.3f} times the bare 16-bit (dx, dy)"
    )
    return sentence, {"name": "storage", **record}


def _visited(manifest: Manifest) -> tuple[str, Record]:
    """Report the verified order; an incorrect one has raised an error before."""
    counts = {name: split.num_sketches for name, split in manifest.splits.items()}
    sentence = (
        f"order: the epoch visited each of {counts['train']:,} training drawings exactly once; together with "
        f"{counts['valid']:,} of valid and {counts['test']:,} of test, each of all {manifest.num_accepted:,} drawings "
        "was found exactly once by its number"
    )
    return sentence, {"name": "visited once", **counts}


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("scale", study_scale, ScaleOptions, arguments)
