"""Writing a checkpoint: committed or absent (DESIGN contract 4)."""

import contextlib
import dataclasses
import heapq
import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor

from sgloc.dist import Group
from sgloc.errors import CheckpointError, ConfigError, SglocError
from sgloc.failpoint import failpoint
from sgloc.storage import Storage, describe
from sgloc.train.checkpoint.format import FILE_NAME, FOLDER, NAME, CheckpointManifest, TensorEntry, step_name
from sgloc.train.checkpoint.load import complete_steps
from sgloc.train.checkpoint.safetensors_io import write_file

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


class Writer:
    """Writes a run's checkpoints. All ranks must make it, and call it, together.

    Args:
        run_dir: the run's folder or URL.
        group: of the ranks, on host memory.
        keep: how many of the newest checkpoints stay, besides the best.
        keep_every: those of every so manieth step stay as well; 0: none.
        check: raises ConfigError once the run must not write there any more.
    """

    def __init__(
        self, run_dir: str, group: Group, keep: int, keep_every: int = 0, check: Callable[[], None] = lambda: None
    ) -> None:
        self.storage = Storage(f"{run_dir.rstrip('/')}/{FOLDER}")
        self.group, self.keep, self.keep_every, self.check = group, keep, keep_every, check
        # The last step of which a checkpoint was to be written.
        self._reached = 0

    def write(self, manifest: CheckpointManifest, tensors: Mapping[str, Tensor]) -> None:
        """Commit a checkpoint: afterwards it is there whole, or not at all. Then remove those that need not stay.

        Args:
            manifest: everything but its files. The best are those that its state names.
            tensors: those of its tensors that are this rank's by `share_out`, contiguous, in host memory.

        Raises:
            SaveError: on every rank, if it cannot be written.
            ConfigError: on every rank, if `check` raised it.
        """
        step = manifest.step
        try:
            self._together(lambda: self._begin(step))
            written = self._together(lambda: self._write_own(manifest, tensors))
            files = {name: digest for part in self.group.gather(written) for name, digest in part.items()}
            self._together(lambda: self._commit(dataclasses.replace(manifest, files=files)))
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
        folder, file = f"{step_name(manifest.step)}.tmp", shard_name(self.group.rank, self.group.world_size)
        # Where not all ranks see the same folder, writing goes well, and committing finds out.
        self.storage.make_folder(folder)
        written = self.storage.retry(
            lambda: write_file(self.storage, folder, file, manifest, tensors), f"{folder}/{file}", verb="written"
        )
        failpoint("checkpoint.written", manifest.step)
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

    def _commit(self, manifest: CheckpointManifest) -> None:
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
        self._retain(manifest)

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

    def _retain(self, manifest: CheckpointManifest) -> None:
        """Remove what need not stay; the checkpoint is there whether that goes well or not."""
        try:
            failpoint("checkpoint.renamed", manifest.step)
            steps = complete_steps(self.storage)
            # Those of later steps were damaged, and the run went on from an older one. They must not count as newest.
            self._reached = max(self._reached, manifest.step)
            own = [step for step in steps if step <= self._reached]
            stay = {*own[: self.keep], manifest.state.get("best_step"), manifest.state.get("saved_best_step")}
            if self.keep_every:
                stay |= {step for step in own if step % self.keep_every == 0}
            for superfluous in [step for step in steps if step not in stay]:
                self.storage.remove(step_name(superfluous), FILE_NAME)
                failpoint("checkpoint.retained", manifest.step)
        except Exception as error:  # As above.
            logger.warning("old checkpoints in %s could not be removed (%s)", self.storage.location, describe(error))
