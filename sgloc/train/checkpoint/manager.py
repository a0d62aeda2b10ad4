"""What a run saves, when, and what happens when a save fails (DESIGN contract 4)."""

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

# Waiting longer for the save before is worth a word.
_NOTICEABLE_SECONDS = 1.0
# Before a last save is tried again, times the number of those that failed.
_PAUSE_SECONDS = 2.0
# How often ranks that wait for a save agree on whether to go on waiting.
_SLICE_SECONDS = 0.1
# Once a run was asked to stop, a store that accepts nothing for this long is given up.
_SILENT_SECONDS = 15.0


@dataclass(frozen=True)
class _Copy:
    """A step's weights in host memory, with what a checkpoint of them says.

    Attributes:
        manifest: all of it but the files.
        tensors: this rank's.
        loss: the validation loss, where these are the best weights; else None.
    """

    manifest: CheckpointManifest
    tensors: dict[str, Tensor]
    loss: float | None

    @property
    def as_best(self) -> dict[str, Any]:
        """What the run's state says once these are committed as the best weights; nothing if they are not the best."""
        return {} if self.loss is None else {"saved_best_step": self.manifest.step, "saved_best_loss": self.loss}


class CheckpointManager:
    """Saves a run's checkpoints, while it goes on. All ranks must make it, and call it, together.

    The run waits for the copy to host memory only; a thread writes it, through collectives of its own. At most one
    save is being written: the next save waits for it, and takes note of how it went. The copy of the best weights stays
    in memory until they are committed: a save of them that fails is repeated at the next one.

    Args:
        config: of the run.
        data: manifest of its shards.
        engine: that trains; it is asked for its layout now, and for its tensors at every save.
        state: of the run; the best checkpoint is noted in it once it is committed.
        group: of the ranks, in which they agree while they wait.
        writers: the ranks in a group of their own, which the thread uses.
        saved_step: of the run's newest checkpoint; None when it has none.
        check: raises ConfigError once the run must not write into its folder any more.
        is_stopped: whether this process was asked to stop.
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
        # What is being written: the step, when that began, and in the end which copies were committed, and why the last
        # one was not.
        self._writing: Future[tuple[list[_Copy], SaveError | None]] | None = None
        self._step, self._began = 0, 0.0
        self._num_failures, self._given_up = 0, False
        # The best weights, until they are committed.
        self._best: _Copy | None = None

    @property
    def is_overdue(self) -> bool:
        """Whether this rank's thread has been writing for longer than train.timeout: then the save has failed."""
        return self._is_writing and time.monotonic() - self._began > self.config.timeout

    @property
    def _is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def holds(self, step: int | None) -> bool:
        """Whether a step's weights, as the best, are in memory and not committed yet."""
        return self._best is not None and self._best.manifest.step == step

    def best_kept(self) -> float:
        """The lowest validation loss whose weights are committed or in memory."""
        waiting = self._best.loss if self._best is not None else None
        saved = self.state.saved_best_loss
        return saved if waiting is None else min(waiting, saved)

    def save(self, loss: float | None = None) -> None:
        """Begin to save a checkpoint of this step, once the one before is written.

        Args:
            loss: the step's validation loss where its weights are the best; they are kept until they are committed.

        Raises:
            UnreachableError: on every rank, if too many in a row could not be written, up to the one before, or that
                one takes longer than train.timeout.
        """
        self.wait()
        self._begin(loss, "the next is tried at the next save")

    def save_at_last(self) -> None:
        """Save a checkpoint of this step, and the best, unless they are saved, and wait until they are committed.

        Raises:
            UnreachableError: as `save`; also if they cannot be written as often as it is tried.
        """
        self.wait()
        self._num_failures = 0
        while self.saved_step != self.state.step or self._best is not None:
            time.sleep(_PAUSE_SECONDS * self._num_failures)
            self._begin(None, "it is tried again")
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written, and take note of how it went.

        Raises:
            UnreachableError: as `save`.
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
                f"{self._num_failures} saves in a row could not be written to {self.config.run}, the last since "
                f"{failure}; {self._what_is_there()}; make room or give another train.run, then start again"
            )
            raise self.group.told_once(error)

    def _wait_a_little(self, writing: Future[Any]) -> bool:
        """Whether some rank's thread is still at it, after waiting a little. All ranks must call it together."""
        concurrent.futures.wait([writing], _SLICE_SECONDS)
        is_silent = time.monotonic() - max(self._writer.storage.moved, self._began) > _SILENT_SECONDS
        flags = [self._is_writing, self.is_overdue, self._is_stopped(), is_silent]
        still_writing, overdue, stops, silent = self.group.sum([float(flag) for flag in flags])
        if still_writing and overdue:
            self.refuse_overdue()
        if still_writing and stops and silent == self.group.world_size:
            self._give_up(
                f"a signal asked to stop while the checkpoint of step {self._step} was being written to "
                f"{self.config.run}, which has accepted nothing for {_SILENT_SECONDS:g} s"
            )
        return still_writing > 0

    def refuse_overdue(self) -> None:
        """Give up, on every rank, a save that takes longer than train.timeout.

        Raises:
            UnreachableError: always.
        """
        self._give_up(
            f"the checkpoint of step {self._step} was not written to {self.config.run} within "
            f"{self.config.timeout:g} s (train.timeout): the store does not answer"
        )

    def close(self) -> None:
        """Wait for what is being written, however it goes, but not for what was given up; nothing more is saved."""
        if self._given_up:
            return
        if self._writing is not None:
            # Where other ranks are gone, its collectives end by themselves; a store may never answer.
            rest = self.config.timeout - (time.monotonic() - self._began)
            concurrent.futures.wait([self._writing], max(rest, 0.0))
        self._pool.close()

    def _begin(self, loss: float | None, what_next: str) -> None:
        """Start writing the best, if it is not committed, and a copy of this step, if that is not saved."""
        # Rank 0 may come later, from its loggers. The time that the save may take begins for all ranks together.
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
        """The weights in host memory, and all else that a checkpoint of this step consists of."""
        tensors = self.engine.snapshot(self._own.__contains__)
        manifest = dataclasses.replace(
            self._manifest,
            step=self.state.step,
            saved_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            state=dataclasses.asdict(self.state),
        )
        # Contiguous here, for this may take torch's threads.
        return _Copy(manifest, {name: tensor.contiguous() for name, tensor in tensors.items()}, loss)

    def _write(self, copies: list[_Copy], what_next: str) -> tuple[list[_Copy], SaveError | None]:
        """Write copies one after the other, in the thread; returns those that were committed, and why the last one was
        not."""
        committed: list[_Copy] = []
        failure, best = None, dict[str, Any]()
        for copy in copies:
            # Whoever reads it finds it committed.
            state = {**copy.manifest.state, **best, **copy.as_best}
            try:
                self._writer.write(dataclasses.replace(copy.manifest, state=state), copy.tensors)
            except SaveError as error:
                failure = error
                if self.group.rank == 0:
                    kept = "its weights, the best so far, are kept in memory until then; " if copy.as_best else ""
                    count = f"{kept}{self._num_failures + 1} of {self.config.save_attempts}"
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
        """Raise, on every rank, what there is to say where the thread may never end."""
        self._given_up = True
        error = SilentStoreError(f"{what}; {self._what_is_there()}; check the store, then start again")
        raise self.group.told_once(error)

    def _what_is_there(self) -> str:
        saved = self.saved_step
        newest = "there is no checkpoint" if saved is None else f"the newest is that of step {saved}"
        if self._best is None:
            return newest
        loss = f" (validation loss {self._best.loss:.4f})"
        return f"{newest}; the best weights, of step {self._best.manifest.step}{loss}, are lost with this process"

    def _constants(self, config: RunConfig, data: Manifest, engine: Engine) -> CheckpointManifest:
        """What all checkpoints of the run say."""
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
