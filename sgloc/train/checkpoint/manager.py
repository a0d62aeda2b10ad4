"""Checkpoint manager: when a run saves what, and how failed saves are handled (DESIGN contract 4)."""

import concurrent.futures
import dataclasses
import datetime
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sgloc.config import RunConfig
from sgloc.data.manifest import Manifest
from sgloc.dist import Group
from sgloc.errors import SilentStoreError, UnreachableError
from sgloc.threads import DaemonPool
from sgloc.train.checkpoint.format import CheckpointManifest
from sgloc.train.checkpoint.writer import SaveError, Writer, shard_name, share_out
from sgloc.train.engine import Engine
from sgloc.train.record import recorded_options, versions
from sgloc.train.state import TrainState

logger = logging.getLogger(__name__)

# A longer wait for the previous save is logged.
_NOTICEABLE_SECONDS = 1.0
# Pause before the final save is retried, multiplied by the number of failures.
_PAUSE_SECONDS = 2.0
# Interval at which ranks waiting for a save agree on whether to keep waiting.
_SLICE_SECONDS = 0.1
# After a stop signal, a save is abandoned once the store has accepted no data for this long.
_SILENT_SECONDS = 15.0


@dataclass(frozen=True)
class _Copy:
    """A copy of a step's tensors in host memory, with the checkpoint's manifest.

    Attributes:
        manifest: the manifest, complete except for `files`.
        tensors: this rank's tensors by name.
        loss: validation loss if these are the best weights; else None.
    """

    manifest: CheckpointManifest
    tensors: dict[str, Tensor]
    loss: float | None

    @property
    def as_best(self) -> dict[str, Any]:
        """Changes to the training state once these weights are committed; empty if they are not the best."""
        return {} if self.loss is None else {"saved_best_step": self.manifest.step, "saved_best_loss": self.loss}


class CheckpointManager:
    """Saves a run's checkpoints asynchronously. The constructor and all methods that save or wait are collective.

    Training waits only for the copy to host memory; a thread writes the copy, using a process group of its own. At most
    one save is in progress: the next save waits for it and records its outcome. A copy of the best weights stays in
    memory until it is committed, so that a failed save of them is repeated with the next one.

    Args:
        config: configuration of the run.
        data: manifest of the run's shards.
        engine: the run's engine; asked for its layout now, and for its tensors at every save.
        state: the run's state; the best checkpoint is recorded in it once committed.
        group: group of the ranks, used by the training thread while waiting.
        writers: separate group of the same ranks, used by the writer thread.
        saved_step: step of the run's newest checkpoint; None without one.
        check: raises ConfigError if the run may no longer write to its folder.
        is_stopped: returns whether this process has received a stop signal.
    """

    def __init__(
        self,
        config: RunConfig,
        data: Manifest,
        engine: Engine,
        state: TrainState,
        group: Group,
        writers: Group,
        saved_step: int | None,
        check: Callable[[], None] = lambda: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.engine, self.state, self.group = config.train, engine, state, group
        self.saved_step, self._is_stopped = saved_step, is_stopped
        keep, keep_every = config.train.keep_checkpoints, config.train.keep_every
        self._writer = Writer(config.train.run, writers, keep, keep_every, check)
        self._manifest = self._constants(config, data, engine)
        shard = shard_name(group.rank, group.world_size)
        self._own = {name for name, entry in self._manifest.tensors.items() if entry.file == shard}
        self._pool = DaemonPool(1, "sgloc-checkpoint")
        # The save in progress: its step and start time; the future's result is as `_write` returns it.
        self._writing: Future[tuple[list[_Copy], SaveError | None]] | None = None
        self._step, self._began = 0, 0.0
        self._num_failures, self._given_up = 0, False
        # The best weights, until committed.
        self._best: _Copy | None = None

    @property
    def is_overdue(self) -> bool:
        """Whether this rank's thread has been writing for longer than train.timeout; the save then counts as failed."""
        return self._is_writing and time.monotonic() - self._began > self.config.timeout

    @property
    def _is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def holds(self, step: int | None) -> bool:
        """Return whether a step's weights are in memory as the best ones, not yet committed."""
        return self._best is not None and self._best.manifest.step == step

    def best_kept(self) -> float:
        """Return the lowest validation loss whose weights are committed or in memory."""
        waiting = self._best.loss if self._best is not None else None
        saved = self.state.saved_best_loss
        return saved if waiting is None else min(waiting, saved)

    def save(self, loss: float | None = None) -> None:
        """Wait for the previous save, then start saving a checkpoint of this step.

        Args:
            loss: the step's validation loss if its weights are the best, which are kept in memory until committed.

        Raises:
            UnreachableError: on every rank, if the previous save takes longer than train.timeout, or was the last of
                train.save_attempts consecutive failures.
        """
        self.wait()
        self._begin(loss, "will retry at the next save")

    def save_at_last(self) -> None:
        """Save this step and the best weights, unless saved already, and wait until they are committed.

        Raises:
            UnreachableError: see `save`; also if all train.save_attempts fail.
        """
        self.wait()
        self._num_failures = 0
        while self.saved_step != self.state.step or self._best is not None:
            time.sleep(_PAUSE_SECONDS * self._num_failures)
            self._begin(None, "retrying")
            self.wait()

    def wait(self) -> None:
        """Wait until no save is in progress, and record the outcome.

        Raises:
            UnreachableError: see `save`.
        """
        if self._writing is None:
            return
        start = time.monotonic()
        while self._wait_a_little(self._writing):
            pass
        waited = time.monotonic() - start
        if waited > _NOTICEABLE_SECONDS:
            logger.info("training waited %.1f s for the checkpoint of step %d to be written", waited, self._step)
        writing, self._writing = self._writing, None
        committed, failure = writing.result()
        for copy in committed:
            self.saved_step = max(self.saved_step or 0, copy.manifest.step)
            if copy.loss is not None:
                self.state.saved_best_step, self.state.saved_best_loss = copy.manifest.step, copy.loss
                self._best = None
        self._num_failures = 0 if failure is None else self._num_failures + 1
        if self._num_failures >= self.config.save_attempts:
            error = UnreachableError(
                f"{self._num_failures} consecutive saves to {self.config.run} failed, the last with "
                f"{failure}; {self._what_is_there()}; free disk space or choose another run folder (train.run), then "
                "start again"
            )
            raise self.group.told_once(error)

    def _wait_a_little(self, writing: Future[Any]) -> bool:
        """Wait briefly, and return whether some rank's thread is still writing. Collective."""
        concurrent.futures.wait([writing], _SLICE_SECONDS)
        is_silent = time.monotonic() - max(self._writer.storage.moved, self._began) > _SILENT_SECONDS
        flags = [self._is_writing, self.is_overdue, self._is_stopped(), is_silent]
        still_writing, overdue, stops, silent = self.group.sum([float(flag) for flag in flags])
        if still_writing and overdue:
            self.refuse_overdue()
        if still_writing and stops and silent == self.group.world_size:
            self._give_up(
                f"a stop signal arrived while the checkpoint of step {self._step} was being written to "
                f"{self.config.run}, which has accepted no data for {_SILENT_SECONDS:g} s"
            )
        return still_writing > 0

    def refuse_overdue(self) -> None:
        """Abandon, on every rank, a save that takes longer than train.timeout.

        Raises:
            UnreachableError: always.
        """
        self._give_up(
            f"the checkpoint of step {self._step} was not written to {self.config.run} within "
            f"{self.config.timeout:g} s (train.timeout): the store does not answer"
        )

    def close(self) -> None:
        """Wait for a save in progress, whatever its outcome, unless it was abandoned. No save may follow."""
        if self._given_up:
            return
        if self._writing is not None:
            # If other ranks are gone, the thread's collectives fail by themselves; but a store may never answer.
            rest = self.config.timeout - (time.monotonic() - self._began)
            concurrent.futures.wait([self._writing], max(rest, 0.0))
        self._pool.close()

    def _begin(self, loss: float | None, what_next: str) -> None:
        """Start writing the uncommitted best weights, if any, and this step, unless it is saved."""
        # Synchronize, so that the timeout of the save starts on all ranks together: rank 0 may be delayed by loggers.
        self.group.sum([0.0])
        self._began = time.monotonic()
        copies = []
        if self._best is not None and loss is None:
            copies.append(self._best)
        if self.saved_step != self.state.step or loss is not None:
            copies.append(self._copy(loss))
        if loss is not None:
            self._best = copies[-1]
        self._step = copies[-1].manifest.step
        self._writing = self._pool.submit(self._write, copies, what_next)

    def _copy(self, loss: float | None) -> _Copy:
        """Copy this rank's tensors to host memory, and complete the manifest of this step's checkpoint."""
        tensors = self.engine.snapshot(self._own.__contains__)
        manifest = dataclasses.replace(
            self._manifest,
            step=self.state.step,
            saved_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            state=dataclasses.asdict(self.state),
        )
        # Here rather than in the writer thread, since making tensors contiguous may use torch's thread pool.
        return _Copy(manifest, {name: tensor.contiguous() for name, tensor in tensors.items()}, loss)

    def _write(self, copies: list[_Copy], what_next: str) -> tuple[list[_Copy], SaveError | None]:
        """Write copies in order, in the writer thread.

        Returns:
            The copies that were committed, and the error of the last copy, or None if that was committed.
        """
        committed: list[_Copy] = []
        failure, best = None, dict[str, Any]()
        for copy in copies:
            # The saved state must already count this checkpoint as committed: once readable, it is.
            state = {**copy.manifest.state, **best, **copy.as_best}
            try:
                self._writer.write(dataclasses.replace(copy.manifest, state=state), copy.tensors)
            except SaveError as error:
                failure = error
                if self.group.rank == 0:
                    kept = "its weights, the best so far, are kept in memory until then; " if copy.as_best else ""
                    count = f"{kept}failure {self._num_failures + 1} of {self.config.save_attempts}"
                    step = copy.manifest.step
                    logger.warning(
                        "checkpoint of step %d could not be written (%s); %s; %s", step, error, what_next, count
                    )
            else:
                failure = None
                committed.append(copy)
                best |= copy.as_best
        return committed, failure

    def _give_up(self, what: str) -> None:
        """Raise SilentStoreError on every rank, and do not wait for the thread, which may hang for ever."""
        self._given_up = True
        error = SilentStoreError(f"{what}; {self._what_is_there()}; check the store, then start again")
        raise self.group.told_once(error)

    def _what_is_there(self) -> str:
        saved = self.saved_step
        newest = "there is no checkpoint" if saved is None else f"the newest checkpoint is of step {saved}"
        if self._best is None:
            return newest
        loss = f" (validation loss {self._best.loss:.4f})"
        return f"{newest}; the best weights, of step {self._best.manifest.step}{loss}, are lost with this process"

    def _constants(self, config: RunConfig, data: Manifest, engine: Engine) -> CheckpointManifest:
        """Return the manifest with the fields that are the same in all checkpoints of the run."""
        return CheckpointManifest(
            step=0,
            saved_at="",
            engine=engine.name,
            world_size=self.group.world_size,
            global_batch=config.train.global_batch,
            config=recorded_options(config),
            data_identity=data.identity,
            licence=data.licence,
            num_categories=len(data.categories),
            num_drawings=data.splits["train"].num_sketches,
            scale=data.scale,
            longest_points=data.longest_points,
            state={},
            versions=versions(),
            tensors=share_out(engine.layout(), self.group.world_size),
            files={},
        )
