"""Building of one part: from source files to shards."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing

from sgloc.data.build.fetch import Downloads
from sgloc.data.build.plan import BuildOptions, Plan
from sgloc.data.build.seen import SeenKeys
from sgloc.data.build.splits import split_by_key, split_quotas
from sgloc.data.build.writer import SplitWriter
from sgloc.data.formats.form import read_drawings
from sgloc.data.formats.sources import SourceFile
from sgloc.data.manifest import SPLITS, Manifest, Source
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.storage import Storage

PARTS = "parts"
_REPORT_EVERY = 1024
# Limit on the words recorded per part, which serve only to explain why a requested category is missing.
_MOST_WORDS = 10_000

Report = Callable[[int, int], None]
"""Callback that takes the total numbers of drawings read and rejected so far."""


def part_file(number: int, what: str) -> str:
    """Return the name of a part's file; `what` is "json", "rejects" or "words"."""
    return f"{PARTS}/{number:05d}.{what}"


def build_part(folder: Storage, plan: Plan, number: int, downloads: Downloads, report: Report) -> None:
    """Build a part's shards.

    The part's JSON file, its manifest, is written last and marks the part as complete. Two further files record the
    rejects and the words of the valid drawings.

    Args:
        folder: folder to write to.
        plan: plan of the build.
        number: number of the part.
        downloads: provides each source as a local file.
        report: called about every thousand drawings.

    Raises:
        DataError: if a source cannot be read in its declared format.
        OSError: if the folder cannot be written to.
    """
    writers = {split: SplitWriter(folder, split, number, plan.options) for split in SPLITS}
    with folder.create(part_file(number, "rejects")) as write_reject, closing(SeenKeys()) as seen:
        part = _Part(plan.options, writers, write_reject, seen)
        for source in plan.parts[number]:
            with downloads.open(source) as location:
                part.read(source, location, report)
    manifest = part.finish()
    folder.write(part_file(number, "words"), [f"{word}\n".encode() for word in sorted(part.words)])
    folder.write(part_file(number, "json"), [manifest.to_json().encode()])


class _Part:
    """State of a part while it is being built."""

    def __init__(
        self,
        options: BuildOptions,
        writers: dict[str, SplitWriter],
        write_reject: Callable[[bytes], None],
        seen: SeenKeys,
    ) -> None:
        self._options, self._writers, self._write_reject, self._seen = options, writers, write_reject, seen
        self._wanted = None if options.categories is None else frozenset(options.categories)
        self._quotas = split_quotas(options.per_category)
        self._sources: list[Source] = []
        self._rejected: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._num_read = 0
        self.words: set[str] = set()

    def read(self, source: SourceFile, location: str, report: Report) -> None:
        """Add the drawings of a source file."""
        name, num_read = source.name, 0
        rejected, skipped = self._rejected.total(), self._skipped.total()
        for num_read, outcome in enumerate(read_drawings(location, category=source.category, word=source.word), 1):
            self._take(outcome, name, num_read)
            if num_read % _REPORT_EVERY == 0:
                report(self._num_read + num_read, self._rejected.total())
        self._num_read += num_read
        report(self._num_read, self._rejected.total())
        rejected, skipped = self._rejected.total() - rejected, self._skipped.total() - skipped
        self._sources.append(Source(name, num_read - rejected - skipped, rejected, skipped))

    def _take(self, outcome: Drawing | Reject, name: str, place: int) -> None:
        """Add the drawing or reject at a position, from 1, of a file."""
        if isinstance(outcome, Reject):
            self._reject(outcome, name)
            return
        if len(self.words) < _MOST_WORDS:
            self.words.add(outcome.category)
        if self._wanted is not None and outcome.category not in self._wanted:
            self._skipped["other_category"] += 1
        elif self._options.recognized_only and not outcome.recognized:
            self._skipped["not_recognized"] += 1
        # No check for duplicates: formats with their own splits have no real key_ids, only derived ones.
        elif outcome.split is not None:
            self._writers[outcome.split].add(outcome)
        elif self._seen.add(outcome.key_id):
            self._split(outcome)
        else:
            detail = f"key_id {outcome.key_id} has been seen before"
            self._reject(Reject(name, str(place), "duplicate_key_id", detail), name)

    def _split(self, drawing: Drawing) -> None:
        """Add a drawing to the split that its key_id determines, unless that split's quota for its category is full."""
        split = split_by_key(drawing.key_id)
        writer = self._writers[split]
        if writer.categories[drawing.category] < self._quotas[split]:
            writer.add(drawing)
        else:
            self._skipped["beyond_per_category"] += 1

    def _reject(self, reject: Reject, name: str) -> None:
        self._rejected[reject.reason] += 1
        fields = {"source": name, "place": reject.place, "reason": reject.reason, "detail": reject.detail}
        self._write_reject((json.dumps(fields, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))

    def finish(self) -> Manifest:
        """Write the remaining drawings and return the part's manifest."""
        return Manifest.of(
            {name: writer.finish() for name, writer in self._writers.items()},
            self._writers["train"].moments,
            sketches_per_block=self._options.block_size,
            num_read=self._num_read,
            skipped=dict(sorted(self._skipped.items())),
            rejected=dict(sorted(self._rejected.items())),
            sources=self._sources,
            licence=self._options.licence,
        )
