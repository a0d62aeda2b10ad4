"""Checks of the run folder: writable by every rank, consistent between ranks, enough free space."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sgloc import dist
from sgloc.doctor.examination import Examination
from sgloc.doctor.finding import Finding
from sgloc.errors import DataError, OccupiedError
from sgloc.storage import Storage, only_writer

_CHECK = "run folder"
# Total bytes written by all ranks, and the minimum per rank.
_NUM_BYTES, _LEAST_BYTES = 2**27, 2**20
# Time until a file written by one rank must be visible to the others, and from which to warn.
_SEEN_SECONDS, _SLOW_SECONDS = 5.0, 1.0
_POLL_SECONDS = 0.02
# Weights and Adam's two moments in float32; and how many checkpoints a run has by default, counting the one being
# written.
BYTES_A_PARAMETER, _NUM_CHECKPOINTS = 12, 4
_SLOW_CHECKPOINT = 60.0


@dataclass(frozen=True)
class Folder:
    """One rank's facts about the run folder.

    Attributes:
        seen_seconds: seconds until the rank saw rank 0's file.
        write_seconds: seconds to write the rank's own file.
        is_locked: whether rank 0's lock kept this rank out; None if the file system has no locks.
        num_free_bytes: free bytes on the file system; None if it does not report them.
    """

    seen_seconds: float
    write_seconds: float
    is_locked: bool | None = None
    num_free_bytes: int | None = None


class _Probe:
    """A temporary folder inside the run folder, written like a checkpoint, one file per rank, then removed."""

    def __init__(self, run: str, name: str, rank: int, num_bytes: int) -> None:
        self.storage, self.name, self.rank, self.num_bytes = Storage(run), name, rank, num_bytes
        self.location = f"{self.storage.location}/{name}"
        self.write_seconds = 0.0
        self._on_exit = contextlib.ExitStack()

    def prepare(self) -> None:
        """On rank 0: write its file, rename the folder into place, and claim it as a run does."""
        if self.rank != 0:
            return
        if self.storage.is_local and not self.storage.exists():
            self._on_exit.callback(Path(self.storage.root).rmdir)
        for folder in (self.name, f"{self.name}.tmp"):
            self._on_exit.callback(self.storage.remove, folder, "0")
        self.storage.make_folder(f"{self.name}.tmp")
        self._write(f"{self.name}.tmp/0")
        self.storage.rename(f"{self.name}.tmp", self.name, ["0"])
        self._on_exit.enter_context(only_writer(self.location))

    def look(self) -> Folder:
        """Wait for rank 0's file, write this rank's own, and collect the facts.

        Raises:
            DataError: if rank 0's file does not appear in time.
        """
        seen_seconds = self.see([0])
        if self.rank != 0:
            self._write(f"{self.name}/{self.rank}")
        try:
            with only_writer(self.location) as claim:
                is_locked = False if claim.token is None else None
        except OccupiedError:
            is_locked = True
        free = shutil.disk_usage(self.storage.root).free if self.storage.is_local else None
        return Folder(seen_seconds, self.write_seconds, is_locked, free)

    def see(self, ranks: Iterable[int]) -> float:
        """Wait until the files of these ranks are complete; return the seconds waited.

        Raises:
            DataError: if a file does not appear in time; names its rank.
        """
        start = time.monotonic()
        while True:
            sizes = self.storage.sizes(self.name)
            missing = [rank for rank in ranks if sizes.get(str(rank)) != self.num_bytes]
            if not missing:
                return time.monotonic() - start
            if time.monotonic() - start > _SEEN_SECONDS:
                where = f"rank {missing[0]} wrote to {self.storage.root}"
                raise DataError(f"after {_SEEN_SECONDS:.0f} s, it still does not see the file that {where}")
            time.sleep(_POLL_SECONDS)

    def _write(self, name: str) -> None:
        start = time.monotonic()
        self.storage.write(name, [os.urandom(_LEAST_BYTES)] * (self.num_bytes // _LEAST_BYTES))
        self.write_seconds = time.monotonic() - start

    def remove(self) -> None:
        """Restore the run folder to its initial state."""
        with contextlib.suppress(OSError):
            self._on_exit.close()


def check_folder(examination: Examination, run: str, num_parameters: int) -> None:
    """Write to the run folder from all ranks, as a run does, and clean up. Collective: all ranks must call it."""
    world_size = len(examination.hosts)
    num_bytes = max(_LEAST_BYTES, _NUM_BYTES // world_size // _LEAST_BYTES * _LEAST_BYTES)
    name = dist.Group().on_rank_0(lambda: f"doctor-{secrets.token_hex(8)}")
    probe = _Probe(run, name, examination.rank, num_bytes)
    advice = f"choose a run folder (train.run) that every node can write to, instead of {run}"
    try:
        if examination.check(_CHECK, probe.prepare, advice) is None:
            return
        facts = examination.check(_CHECK, probe.look, advice)
        if facts is None:
            return
        if examination.check(_CHECK, lambda: probe.see(range(world_size)), advice):
            examination.findings += judge_folder(facts, examination, run, world_size * num_bytes, num_parameters)
    finally:
        probe.remove()


def judge_folder(
    facts: Mapping[int, Folder], ranks: Examination, run: str, num_bytes: int, num_parameters: int
) -> Iterator[Finding]:
    """Judge visibility of files between ranks, locks, free space and write speed.

    Args:
        facts: facts of each rank.
        ranks: the participating ranks.
        run: the run folder.
        num_bytes: total bytes written by all ranks.
        num_parameters: parameters of the model whose checkpoints the folder must hold.
    """
    last = max(facts, key=lambda rank: facts[rank].seen_seconds)
    seconds = facts[last].seen_seconds
    found = f"{run}: all ranks can write, and see each other's files within {seconds:.2f} s"
    advice = f"{ranks.names([last])} was last; check the mount options (actimeo, lookupcache)"
    yield Finding.judged(_CHECK, seconds <= _SLOW_SECONDS, "warning", found, advice)

    unseen = [rank for rank, folder in facts.items() if folder.is_locked is False]
    has_none = any(folder.is_locked is None for folder in facts.values())
    found = "not supported here: never start two runs in one folder" if has_none else "seen by all ranks"
    if unseen:
        found = f"rank 0's file lock is not seen by {ranks.names(unseen)}"
    advice = "never start two runs in one folder: the second would not be refused"
    yield Finding.judged("locks", not unseen, "warning", found, advice)

    size = BYTES_A_PARAMETER * num_parameters
    free = min((folder.num_free_bytes for folder in facts.values() if folder.num_free_bytes is not None), default=None)
    if free is not None:
        found = f"{free / 1e9:,.1f} GB free; a checkpoint of the published model takes {size / 1e9:.2f} GB"
        advice = f"a run keeps up to {_NUM_CHECKPOINTS} checkpoints: make {_NUM_CHECKPOINTS * size / 1e9:.1f} GB free"
        has_room = free >= _NUM_CHECKPOINTS * size
        yield Finding.judged("free space", has_room, "problem", found, advice, {"free_bytes": free})

    rate = num_bytes / max(folder.write_seconds for folder in facts.values())
    found = f"{rate / 1e6:,.0f} MB/s, all ranks together: {size / rate:.1f} s per checkpoint"
    advice = "write to a faster file system, or save less often (train.checkpoint_every)"
    is_fast = size / rate <= _SLOW_CHECKPOINT
    yield Finding.judged("writing", is_fast, "warning", found, advice, {"bytes_per_second": rate})
