"""One part of a build: its drawings, from their files into shards."""

import contextlib
import itertools
import json
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.seen import SeenKeys
from sgloc.data.build.splits import split_by_key, split_quotas
from sgloc.data.build.writer import SplitWriter
from sgloc.data.formats.form import form_of, read_drawings
from sgloc.data.formats.sources import SourceFile
from sgloc.data.manifest import SPLITS, Manifest, Source
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.storage import NewFile, Storage

PARTS = "parts"
# Drawings that are looked at together.
_CHUNK = 1024
# Words that are remembered to tell which were there where a wanted category was not.
_MOST_WORDS = 1000

Report = Callable[[int, int], None]
"""Takes how many drawings were read and how many rejected, both in all."""
OpenSource = Callable[[SourceFile], contextlib.AbstractContextManager[str]]
"""Gives where a source file can be read."""


def part_file(number: int, what: str) -> str:
    """The name of a file about a part: its "json", "rejects" or "words"."""
    return f"{PARTS}/{number:05d}.{what}"


def build_part(
    folder: Storage,
    number: int,
    sources: list[SourceFile],
    options: BuildOptions,
    *,
    open_source: OpenSource,
    report: Report,
) -> None:
    """Build a part's shards, then tell of its rejects, of the words of sound drawings that were not taken, and last of
    the shards.

    Args:
        folder: to write to.
        number: of the part.
        sources: its files.
        options: of the build.
        open_source: gives where each can be read.
        report: called every thousand drawings or so.

    Raises:
        DataError: if a source cannot be read as what it claims to be.
        OSError: if the folder cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        rejects = stack.enter_context(folder.create(part_file(number, "rejects")))
        writers = {split: stack.enter_context(SplitWriter(folder, split, number, options)) for split in SPLITS}
        part = _Part(options, writers, rejects)
        for source in sources:
            with open_source(source) as location:
                part.read(source, location, report)
    folder.write(part_file(number, "words"), [f"{word}\n".encode() for word in sorted(part.words)])
    folder.write(part_file(number, "json"), [part.manifest().to_json().encode()])


@dataclass
class _Part:
    """What is known of a part's drawings so far."""

    options: BuildOptions
    writers: dict[str, SplitWriter]
    rejects: NewFile

    def __post_init__(self) -> None:
        self.wanted = None if self.options.categories is None else frozenset(self.options.categories)
        self.quotas = split_quotas(self.options.per_category)
        self.seen = SeenKeys()
        self.words: set[str] = set()
        self.sources: list[Source] = []
        self.rejected: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.num_read = 0

    def read(self, source: SourceFile, location: str, report: Report) -> None:
        """Take a file's drawings."""
        name = source_name(source)
        before, rejected, skipped = self.num_read, self.rejected.total(), self.skipped.total()
        drawings = read_drawings(location, category=source.category, word=source.word)
        while outcomes := list(itertools.islice(drawings, _CHUNK)):
            self._take(outcomes, name, self.num_read - before + 1)
            self.num_read += len(outcomes)
            report(self.num_read, self.rejected.total())
        rejected, skipped = self.rejected.total() - rejected, self.skipped.total() - skipped
        self.sources.append(Source(name, self.num_read - before - rejected - skipped, rejected, skipped))

    def _take(self, outcomes: list[Drawing | Reject], name: str, first_place: int) -> None:
        """Take some consecutive outcomes of reading a file, the first of which stands at a place, from 1."""
        rejects: list[tuple[int, Reject]] = []
        drawings: list[tuple[int, Drawing]] = []
        for place, outcome in enumerate(outcomes, start=first_place):
            if isinstance(outcome, Reject):
                rejects.append((place, outcome))
            elif self._is_wanted(outcome):
                drawings.append((place, outcome))
        # What a source splits itself has no key_ids of its own.
        keyed = [(place, drawing) for place, drawing in drawings if drawing.split is None]
        is_new = self.seen.add([drawing.key_id for _, drawing in keyed])
        for (place, drawing), new in zip(keyed, is_new, strict=True):
            if new:
                self._split(drawing)
            else:
                self._remember(drawing.category)
                detail = f"key_id {drawing.key_id} has come before"
                rejects.append((place, Reject(name, str(place), "duplicate_key_id", detail)))
        for _, drawing in drawings:
            if drawing.split is not None:
                self.writers[drawing.split].add(drawing)
        for _, reject in sorted(rejects, key=lambda placed: placed[0]):
            self._reject(reject, name)

    def _is_wanted(self, drawing: Drawing) -> bool:
        """Whether a drawing is asked for; else it is counted."""
        if self.wanted is not None and drawing.category not in self.wanted:
            reason = "other_category"
        elif self.options.recognized_only and not drawing.recognized:
            reason = "not_recognized"
        else:
            return True
        self.skipped[reason] += 1
        self._remember(drawing.category)
        return False

    def _remember(self, word: str) -> None:
        if len(self.words) < _MOST_WORDS:
            self.words.add(word)

    def _split(self, drawing: Drawing) -> None:
        """Take a drawing into the split that its key_id gives, unless there are enough of its category."""
        split = split_by_key(drawing.key_id)
        writer = self.writers[split]
        if writer.contents.categories[drawing.category] < self.quotas[split]:
            writer.add(drawing)
        else:
            self.skipped["beyond_per_category"] += 1

    def _reject(self, reject: Reject, name: str) -> None:
        self.rejected[reject.reason] += 1
        fields = {"source": name, "place": reject.place, "reason": reject.reason, "detail": reject.detail}
        self.rejects.write((json.dumps(fields, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))

    def manifest(self) -> Manifest:
        """What the shards of the part hold, once they are written."""
        splits = {name: writer.split() for name, writer in self.writers.items()}
        return Manifest.of(
            splits,
            self.writers["train"].contents.moments,
            sketches_per_block=self.options.block_size,
            num_read=self.num_read,
            skipped=dict(sorted(self.skipped.items())),
            rejected=dict(sorted(self.rejected.items())),
            sources=self.sources,
            licence=self.options.licence,
        )


def source_name(source: SourceFile) -> str:
    """A source file's name without its folder, the same on a disk and behind a URL; with its folder's name where that
    is the category's."""
    form = form_of(source.location)
    name = "/".join(source.location.split("/")[-2 if form is not None and form.of_folder else -1 :])
    return urllib.parse.unquote(name) if "://" in source.location else name
