"""A scale proof: drawings without number drawn, built into shards, and streamed once, in memory that does not grow."""

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
# Seconds between two looks at the memory, and between two notes of how far a build is.
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
    """How much is built, where, and by how many processes."""

    sketches: int = number_of_sketches()
    """In the made-up QuickDraw."""
    folder: str | None = None
    """Local folder to build in. Required."""
    workers: int = option(1, at_least=0)
    """Processes that build; 0: one a core."""
    batch: int = option(1024, at_least=1)
    """Sketches in a batch of the stream."""


def study_scale(options: ScaleOptions, config: Config) -> TableReport:
    """Draw drawings of QuickDraw's lengths, build shards of them with several processes, and stream one epoch, which
    is checked to visit each exactly once.

    What is done stays in the folder, so that a command that was killed goes on where it was, except in the stream.

    Args:
        options: how many sketches, in which folder, with how many processes.
        config: of the run whose seed and prefetching are measured.

    Raises:
        ConfigError: if no folder is given.
        DataError: if the folder is of another number of sketches, or an epoch does not visit each sketch once.
    """
    if options.folder is None:
        raise ConfigError("folder is not set; name a folder for the drawings and their shards")
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
    """What is done in a folder, kept in a file there.

    Attributes:
        folder: where.
        settings: on which it depends.
        phases: what is known of each, by name.
    """

    folder: Path
    settings: Record
    phases: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, settings: Record) -> "_State":
        """Begin, or go on.

        Raises:
            DataError: if other settings were begun with.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            known = json.loads((folder / _STATE_NAME).read_text())
        except FileNotFoundError:
            return cls(folder, settings)
        if known["settings"] != settings:
            raise DataError(f"{folder} was begun with {known['settings']}; give these again, or another folder")
        return cls(folder, settings, known["phases"])

    def phase(self, name: str) -> Record:
        """What is known of a phase."""
        return self.phases.get(name, {})

    def note(self, name: str, record: Record) -> None:
        """Keep what is known of a phase now."""
        self.phases[name] = record
        partial = self.folder / f"{_STATE_NAME}.partial"
        partial.write_text(to_json({"settings": self.settings, "phases": self.phases}))
        partial.rename(self.folder / _STATE_NAME)


class _Memory:
    """The most memory seen in each tenth of what is to be done, in MiB; looked at now and then."""

    def __init__(self, tenths: list[float] | None = None) -> None:
        self.tenths = tenths or [0.0] * 10
        self._next_look = 0.0

    def look(self, done: float) -> None:
        """See how much is held, by the largest of the processes that this one started or, if there is none, by this
        one, at a share that is done."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _BETWEEN_LOOKS
        pids = [process.pid for process in multiprocessing.active_children()] or [os.getpid()]
        tenth = min(int(10 * done), 9)
        self.tenths[tenth] = max([self.tenths[tenth], *map(_resident_mib, pids)])

    @property
    def record(self) -> Record:
        """All tenths, 0 where nothing was seen; and the first and the last in which something was."""
        seen = [mib for mib in self.tenths if mib > 0] or [0.0]
        return {"mib_by_tenth": self.tenths, "mib_in_first_tenth": seen[0], "mib_in_last_tenth": seen[-1]}


def _resident_mib(pid: int | None) -> float:
    """Memory that a process holds just now; 0 when it has ended."""
    with contextlib.suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def _draw(state: _State, options: ScaleOptions, seed: int) -> None:
    """Draw those categories that are not drawn yet."""
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
    """Build the shards, or what is missing of them; the time of a killed attempt counts."""
    before = state.phase("build")
    memory, start = _Memory(before.get("mib_by_tenth")), time.perf_counter() - before.get("seconds", 0)
    next_note = time.monotonic() + _BETWEEN_NOTES

    def progress(_built: int, _parts: int, num_read: int, _rejected: int) -> None:
        nonlocal next_note
        # Before that, there are no workers yet.
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
    """Which of n numbered sketches were visited: a bit each.

    Args:
        num_sketches: n.
    """

    def __init__(self, num_sketches: int) -> None:
        self.num_sketches, self.count, self.sum = num_sketches, 0, 0
        self._bits = np.zeros(-(-num_sketches // 8), dtype=np.uint8)

    def add(self, numbers: npt.NDArray[np.uint64]) -> None:
        """Visit sketches, uint64 [n].

        Raises:
            DataError: if there is no sketch of such a number.
        """
        if len(numbers) > 0 and numbers.max() >= self.num_sketches:
            raise DataError(f"sketch {numbers.max()} was visited, but there are only {self.num_sketches}")
        np.bitwise_or.at(self._bits, numbers >> np.uint64(3), np.uint8(1) << (numbers & np.uint64(7)).astype(np.uint8))
        self.count += len(numbers)
        self.sum += int(numbers.sum())

    @property
    def num_visited(self) -> int:
        """Sketches that were visited at least once."""
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def check(self) -> None:
        """Refuse, unless each sketch was visited exactly once.

        Raises:
            DataError: if not.
        """
        total = self.num_sketches
        if (self.num_visited, self.count, self.sum) != (total, total, total * (total - 1) // 2):
            raise DataError(
                f"{self.num_visited} of {total} sketches were visited, in {self.count} visits: some are missing or "
                "come twice; build the shards again, and if that does not help, report it"
            )


def _stream(shards: str, manifest: Manifest, options: ScaleOptions, config: Config) -> Record:
    """Stream the first epoch's batches and look which sketches come; then look for the others in the other splits."""
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
    """How large the shards are, beside the bare offsets."""
    num_bytes = sum(shard.num_bytes for shard in manifest.shards)
    bare = sum(split.num_points for split in manifest.splits.values()) * 2 * np.dtype(np.int16).itemsize
    record = {"bytes": num_bytes, "bytes_per_sketch": num_bytes / manifest.num_accepted, "of_bare": num_bytes / bare}
    sentence = (
        f"storage: {num_bytes / 1e9:,.3g} GB, {record['bytes_per_sketch']:.1f} bytes a sketch, "
        f"{record['of_bare']:.3f} times its bare (dx, dy) in 16 bits"
    )
    return sentence, {"name": "storage", **record}


def _visited(manifest: Manifest) -> tuple[str, Record]:
    """Tell that the order was right; if it was not, nothing gets here."""
    counts = {name: split.num_sketches for name, split in manifest.splits.items()}
    sentence = (
        f"order: each of {counts['train']:,} training drawings was visited exactly once in the epoch, and with "
        f"{counts['valid']:,} of valid and {counts['test']:,} of test each of all {manifest.num_accepted:,} was found "
        "exactly once, by its number"
    )
    return sentence, {"name": "visited once", **counts}


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("scale", study_scale, ScaleOptions, arguments)
