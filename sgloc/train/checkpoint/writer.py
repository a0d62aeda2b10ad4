"""Writing a checkpoint: committed or absent (DESIGN contract 4)."""

import contextlib
import dataclasses
import heapq
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from sgloc.dist import Group
from sgloc.errors import CheckpointError, ConfigError, SglocError
from sgloc.failpoint import failpoint
from sgloc.storage import Storage, describe
from sgloc.train.checkpoint.format import FILE_NAME, FOLDER, NAME, CheckpointManifest, TensorEntry, step_name
from sgloc.train.checkpoint.load import complete_steps
from sgloc.train.checkpoint.safetensors_io import write_tensors

logger = logging.getLogger(__name__)

# Network file systems may show late what another machine has written.
_LATE_SECONDS = 10.0

Value = TypeVar("Value")


class SaveError(SglocError):
    """A checkpoint could not be written: the next one may be."""


def share_out(layout: Mapping[str, Tensor], world_size: int) -> dict[str, TensorEntry]:
    """Which rank writes which tensor, so that bytes are balanced: the largest first, each to the rank with the least.

    Args:
        layout: the tensors by name; they need no values.
        world_size: the number of ranks.

    Returns:
        The entries of a checkpoint's manifest. They depend on the arguments alone, so all ranks agree.
    """
    loads = [(0, rank) for rank in range(world_size)]
    entries: dict[str, TensorEntry] = {}
    for name in sorted(layout, key=lambda name: (-layout[name].nbytes, name)):
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + layout[name].nbytes, rank))
        entries[name] = TensorEntry.of(layout[name], shard_name(rank, world_size))
    return entries


def shard_name(rank: int, world_size: int) -> str:
    """Name of the file that a rank writes, if it owns anything."""
    return f"shard-{rank:05d}-of-{world_size:05d}.safetensors"


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay.

    Attributes:
        keep: how many of the newest.
        every: those of every so manieth step besides; 0: none.
        best: those of these steps besides.
        reached: the run's step. Checkpoints of later ones are removed: they were damaged, and the run went on from an
            older one. None: that of the checkpoint which is written.
    """

    keep: int
    every: int = 0
    best: frozenset[int] = frozenset()
    reached: int | None = None

    def superfluous(self, steps: list[int]) -> list[int]:
        """Which of the steps need not stay; they are given newest first."""
        return [
            step for step in steps[self.keep :] if step not in self.best and not (self.every and step % self.every == 0)
        ]


class Writer:
    """Writes a run's checkpoints. All ranks must make it, and call it, together.

    Args:
        run_dir: the run's folder or URL.
        group: of the ranks, on host memory.
        check: raises ConfigError once the run must not write there any more.
    """

    def __init__(self, run_dir: str, group: Group, check: Callable[[], None] = lambda: None) -> None:
        self.storage = Storage(f"{run_dir.rstrip('/')}/{FOLDER}")
        self.group, self.check = group, check

    def write(self, manifest: CheckpointManifest, tensors: Mapping[str, Tensor], retention: Retention) -> None:
        """Commit a checkpoint: afterwards it is there whole, or not at all.

        Args:
            manifest: everything but its files.
            tensors: those of its tensors that are this rank's by `share_out`, contiguous, in host memory.
            retention: which checkpoints stay once it is there.

        Raises:
            SaveError: on every rank, if it cannot be written.
            ConfigError: on every rank, if `check` raised it.
        """
        step = manifest.step
        try:
            self._together(lambda: self._begin(step))
            written = self._together(lambda: self._write_own(manifest, tensors))
            files = {name: digest for part in self.group.gather(written) for name, digest in part.items()}
            self._together(lambda: self._commit(dataclasses.replace(manifest, files=files), retention))
        except SaveError:
            if self.group.rank == 0:
                # A disk that is full is not to stay so. What cannot be removed now, the next save removes.
                with contextlib.suppress(Exception):
                    self.storage.remove(f"{step_name(step)}.tmp", FILE_NAME)
            raise

    def _together(self, action: Callable[[], Value]) -> Value:
        """Call an action on every rank; where it raises on some rank, all ranks raise SaveError or ConfigError."""

        def attempt() -> Value:
            try:
                return action()
            except ConfigError:
                raise
            except Exception as error:  # A store's library may raise anything.
                where = f"rank {self.group.rank}: " if self.group.world_size > 1 else ""
                raise SaveError(f"{where}{describe(error)}") from error

        return self.group.on_each_rank(attempt)

    def _write_own(self, manifest: CheckpointManifest, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, str]]:
        """Write this rank's file, if it owns anything; returns its size in bytes and its SHA-256, by its name."""
        if not tensors:
            return {}
        step, own = manifest.step, {name: manifest.tensors[name] for name in tensors}
        # Where not all ranks see the same folder, writing goes well, and committing finds out.
        self.storage.make_folder(f"{step_name(step)}.tmp")
        file = shard_name(self.group.rank, self.group.world_size)
        path = f"{step_name(step)}.tmp/{file}"
        written = self.storage.retry(
            lambda: write_tensors(self.storage, path, own, tensors, step), path, verb="written"
        )
        failpoint("checkpoint.written", step)
        return {file: written}

    def _begin(self, step: int) -> None:
        """Remove what saves that were cut short have left, and make a new folder."""
        failpoint("checkpoint.begin", step)
        if self.group.rank != 0:
            return
        self.check()
        for name in self.storage.sizes(""):
            match = NAME.fullmatch(name)
            if match and (match[2] or not self.storage.exists(f"{name}/{FILE_NAME}")):
                self.storage.remove(name, FILE_NAME)
        self.storage.make_folder(f"{step_name(step)}.tmp")

    def _commit(self, manifest: CheckpointManifest, retention: Retention) -> None:
        failpoint("checkpoint.gathered", manifest.step)
        if self.group.rank != 0:
            return
        final = step_name(manifest.step)
        self._refuse_lone_folders(f"{final}.tmp", manifest)
        self.check()
        text = manifest.to_json().encode()
        name = f"{final}.tmp/{FILE_NAME}"
        self.storage.retry(lambda: self.storage.write(name, [text]), name, verb="written")
        failpoint("checkpoint.manifest", manifest.step)
        # There may be one that is damaged: the run went on from an older one, and is here again.
        self.storage.remove(final, FILE_NAME)
        self.storage.rename(f"{final}.tmp", final, [*manifest.files, FILE_NAME])
        self._retain(manifest.step, retention)

    def _refuse_lone_folders(self, folder: str, manifest: CheckpointManifest) -> None:
        """Raise CheckpointError unless rank 0 sees what all ranks have written."""
        end = time.monotonic() + _LATE_SECONDS
        while True:
            found = self.storage.sizes(folder)
            missing = [name for name, (size, _) in manifest.files.items() if found.get(name) != size]
            if not missing:
                return
            if time.monotonic() > end:
                raise CheckpointError(
                    f"rank 0 does not find {missing[0]} in {self.storage.location}/{folder} as it was written; "
                    "give a --train.run that all machines share"
                )
            time.sleep(0.1)

    def _retain(self, step: int, retention: Retention) -> None:
        """Remove what need not stay; the checkpoint is there whether that goes well or not."""
        try:
            failpoint("checkpoint.renamed", step)
            steps = complete_steps(self.storage)
            reached = step if retention.reached is None else retention.reached
            # They must not count as newest.
            rejected = [later for later in steps if later > reached]
            for superfluous in rejected + retention.superfluous(steps[len(rejected) :]):
                self.storage.remove(step_name(superfluous), FILE_NAME)
                failpoint("checkpoint.retained", step)
        except Exception as error:  # As above.
            logger.warning("old checkpoints in %s could not be removed (%s)", self.storage.location, describe(error))
