"""Atomic writer of checkpoints: each is either committed or absent (DESIGN contract 4)."""

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

# On network file systems, files written by another machine may become visible with a delay.
_LATE_SECONDS = 10.0

Value = TypeVar("Value")


class SaveError(SglocError):
    """A checkpoint could not be written; a later attempt may succeed."""


def share_out(layout: Mapping[str, Tensor], world_size: int) -> dict[str, TensorEntry]:
    """Assign tensors to ranks for writing, with bytes balanced greedily: largest first, to the least loaded rank.

    Args:
        layout: the tensors by name; may be on the meta device.
        world_size: number of ranks.

    Returns:
        The tensor entries of a checkpoint's manifest. They depend only on the arguments, so all ranks agree.
    """
    loads = [(0, rank) for rank in range(world_size)]
    entries: dict[str, TensorEntry] = {}
    for name in sorted(layout, key=lambda name: (-layout[name].nbytes, name)):
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + layout[name].nbytes, rank))
        entries[name] = TensorEntry.of(layout[name], shard_name(rank, world_size))
    return entries


def shard_name(rank: int, world_size: int) -> str:
    """Return the name of a rank's file; a rank that owns no tensor writes none."""
    return f"shard-{rank:05d}-of-{world_size:05d}.safetensors"


class Writer:
    """Writes and retains a run's checkpoints. The constructor and `write` are collective.

    Args:
        run_dir: folder or URL of the run.
        group: group of the ranks, on host memory.
        keep: number of newest checkpoints to keep, besides the best.
        keep_every: also keep the checkpoint of every `keep_every`-th step; 0 keeps none.
        check: called before writing; raises ConfigError if the run may no longer write to its folder.
    """

    def __init__(
        self, run_dir: str, group: Group, keep: int, keep_every: int = 0, check: Callable[[], None] = lambda: None
    ) -> None:
        self.storage = Storage(f"{run_dir.rstrip('/')}/{FOLDER}")
        self.group, self.keep, self.keep_every, self.check = group, keep, keep_every, check
        # The highest step committed by this process.
        self._reached = 0

    def write(self, manifest: CheckpointManifest, tensors: Mapping[str, Tensor]) -> None:
        """Commit a checkpoint atomically, then remove superfluous ones.

        Args:
            manifest: the manifest, complete except for `files`. Its state names the best checkpoints, which are kept.
            tensors: the tensors that `share_out` assigns to this rank, contiguous, in host memory.

        Raises:
            SaveError: on every rank, if the checkpoint could not be written.
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
                # Free the space, as the disk may be full. If the removal fails, the next save repeats it.
                with contextlib.suppress(Exception):
                    self.storage.remove(f"{step_name(step)}.tmp", FILE_NAME)
            raise

    def _together(self, action: Callable[[], Value]) -> Value:
        """Call an action on every rank; if it raises on any rank, raise SaveError or ConfigError on all of them."""

        def attempt() -> Value:
            try:
                return action()
            except ConfigError:
                raise
            except Exception as error:  # Storage libraries raise exceptions of any type.
                where = f"rank {self.group.rank}: " if self.group.world_size > 1 else ""
                raise SaveError(f"{where}{describe(error)}") from error

        return self.group.on_each_rank(attempt)

    def _write_own(self, manifest: CheckpointManifest, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, str]]:
        """Write this rank's file, if it owns any tensor; return its size in bytes and SHA-256, keyed by file name."""
        if not tensors:
            return {}
        folder, file = f"{step_name(manifest.step)}.tmp", shard_name(self.group.rank, self.group.world_size)
        # If the ranks do not share the folder, this write still succeeds, and the commit detects the missing file.
        self.storage.make_folder(folder)
        written = self.storage.retry(
            lambda: write_file(self.storage, folder, file, manifest, tensors), f"{folder}/{file}", verb="written"
        )
        failpoint("checkpoint.written", manifest.step)
        return {file: written}

    def _begin(self, step: int) -> None:
        """Remove the remains of interrupted saves, and create the temporary folder."""
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
        # A damaged checkpoint of this step may exist, if the run resumed from an older one.
        self.storage.remove(final, FILE_NAME)
        self.storage.rename(f"{final}.tmp", final, [*manifest.files, FILE_NAME])
        self._retain(manifest)

    def _refuse_lone_folders(self, folder: str, manifest: CheckpointManifest) -> None:
        """Raise CheckpointError unless rank 0 sees the files of all ranks, which must share the folder."""
        end = time.monotonic() + _LATE_SECONDS
        while True:
            found = self.storage.sizes(folder)
            missing = [name for name, (size, _) in manifest.files.items() if found.get(name) != size]
            if not missing:
                return
            if time.monotonic() > end:
                raise CheckpointError(
                    f"rank 0 cannot see {missing[0]} in {self.storage.location}/{folder} as it was written; "
                    "choose a run folder (train.run) that all machines share"
                )
            time.sleep(0.1)

    def _retain(self, manifest: CheckpointManifest) -> None:
        """Remove superfluous checkpoints; a failure is only logged, since the new checkpoint is already committed."""
        try:
            failpoint("checkpoint.renamed", manifest.step)
            steps = complete_steps(self.storage)
            # Checkpoints of later steps are damaged ones that the run did not resume from; they must not count among
            # the newest.
            self._reached = max(self._reached, manifest.step)
            own = [step for step in steps if step <= self._reached]
            stay = {*own[: self.keep], manifest.state.get("best_step"), manifest.state.get("saved_best_step")}
            if self.keep_every:
                stay |= {step for step in own if step % self.keep_every == 0}
            for superfluous in [step for step in steps if step not in stay]:
                self.storage.remove(step_name(superfluous), FILE_NAME)
                failpoint("checkpoint.retained", manifest.step)
        except Exception as error:  # Storage libraries raise exceptions of any type.
            logger.warning("could not remove old checkpoints in %s (%s)", self.storage.location, describe(error))
