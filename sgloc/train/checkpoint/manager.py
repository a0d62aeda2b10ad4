"""What a run saves, when, and what happens when a save fails (DESIGN contract 4)."""

import dataclasses
import datetime
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sgloc.config import RunConfig
from sgloc.data.manifest import Manifest
from sgloc.dist import Group
from sgloc.errors import SilentStoreError, UnreachableError
from sgloc.train.checkpoint.format import CheckpointManifest
from sgloc.train.checkpoint.writer import Retention, SaveError, Writer, shard_name, share_out
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


class CheckpointManager:
    """Saves a run's checkpoints, while it goes on. All ranks must make it, and call it, together.

    The run waits for the copy to host memory only; a thread writes it, through collectives of its own. At most one
    thread is writing: the next save waits for it, and takes note of how it went. The copy of the best weights stays in
    memory until they are committed: a save of them that fails is repeated at the next one.

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
        *,
        check: Callable[[], None] = lambda: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.engine, self.state, self.group = config.train, engine, state, group
        self.saved_step = saved_step
        self._writer = Writer(config.train.run, writers, check)
        self._manifest = self._constants(config, data, engine)
        shard = shard_name(group.rank, group.world_size)
        self._own = {name for name, entry in self._manifest.tensors.items() if entry.file == shard}
        self._num_failures = 0
        self._thread: _Thread | None = None
        self._is_stopped = is_stopped
        # The best weights, until they are committed.
        self._best: _Copy | None = None
        self._given_up = False

    @property
    def is_overdue(self) -> bool:
        """Whether this rank's thread has been writing for longer than train.timeout: then the save has failed."""
        thread = self._thread
        return thread is not None and thread.is_alive() and thread.seconds > self.config.timeout

    def holds(self, step: int | None) -> bool:
        """Whether a step's weights, as the best, are in memory and not committed yet."""
        return self._best is not None and self._best.step == step

    def best_kept(self) -> float:
        """The lowest validation loss whose weights are committed or in memory."""
        waiting = self._best.loss if self._best is not None else None
        saved = self.state.saved_best_loss
        return saved if waiting is None else min(waiting, saved)

    def save(self, loss: float | None = None, *, since: float | None = None) -> None:
        """Begin to save a checkpoint of this step, once the one before is written.

        Args:
            loss: the step's validation loss where its weights are the best; they are kept until they are committed.
            since: when this began, by the monotonic clock; None: now.

        Raises:
            UnreachableError: on every rank, if too many in a row could not be written, up to the one before, or that
                one takes longer than train.timeout.
        """
        since = time.monotonic() if since is None else since
        self.wait()
        self._begin(self._copy(loss), "the next is tried at the next save", since)

    def save_at_last(self, loss: float | None = None, *, since: float | None = None) -> None:
        """Save a checkpoint of this step, and the best, unless they are saved, and wait until they are committed.

        Args and Raises: as `save`; UnreachableError also if they cannot be written as often as it is tried.
        """
        self.wait()
        self._num_failures = 0
        while self.saved_step != self.state.step or loss is not None or self._best is not None:
            time.sleep(_PAUSE_SECONDS * self._num_failures)
            copy = self._copy(loss) if self.saved_step != self.state.step or loss is not None else None
            loss = None
            self._begin(copy, "it is tried again", time.monotonic() if since is None else since)
            since = None
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written, and take note of how it went.

        Raises:
            UnreachableError: as `save`.
        """
        if self._thread is None:
            return
        thread, start = self._thread, time.monotonic()
        while self._is_writing(thread):
            pass
        self._thread = None
        waited = time.monotonic() - start
        if waited > _NOTICEABLE_SECONDS:
            logger.info("training waited %.1f s for the checkpoint of step %d to be written", waited, thread.step)
        if thread.error is not None:
            raise thread.error
        for copy in thread.committed:
            self._note(copy)
        if thread.failure is None:
            self._num_failures = 0
        else:
            self._num_failures += 1
            self._give_up_after_too_many(thread.failure)

    def refuse_overdue(self) -> None:
        """Give up, on every rank, a save that takes longer than train.timeout.

        Raises:
            UnreachableError: always.
        """
        assert self._thread is not None
        raise self._silent(
            f"the checkpoint of step {self._thread.step} was not written to {self.config.run} within "
            f"{self.config.timeout:g} s (train.timeout): the store does not answer"
        )

    def close(self) -> None:
        """Wait for what is being written, however it goes, but not for what was given up; nothing more is saved."""
        if self._thread is not None:
            # Where other ranks are gone, its collectives end by themselves; a store may never answer.
            rest = 0.0 if self._given_up else self.config.timeout - self._thread.seconds
            self._thread.join(max(rest, 0.0))

    def _is_writing(self, thread: "_Thread") -> bool:
        """Whether some rank's thread is still at it, after waiting a little. All ranks must call it together."""
        thread.join(_SLICE_SECONDS)
        is_silent = time.monotonic() - max(self._writer.storage.moved, thread.since) > _SILENT_SECONDS
        flags = [thread.is_alive(), self.is_overdue, self._is_stopped(), is_silent]
        writing, overdue, stops, silent = self.group.sum([float(flag) for flag in flags])
        if not writing:
            return False
        if overdue:
            self.refuse_overdue()
        if stops and silent == self.group.world_size:
            raise self._silent(
                f"a signal asked to stop while the checkpoint of step {thread.step} was being written to "
                f"{self.config.run}, which has accepted nothing for {_SILENT_SECONDS:g} s"
            )
        return True

    def _copy(self, loss: float | None) -> "_Copy":
        """The weights in host memory, and all else that a checkpoint of this step consists of."""
        state = self.state
        tensors = self.engine.snapshot(self._own.__contains__)
        # Here, for this may take torch's threads.
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        # Whoever reads it finds it committed.
        kept = {} if loss is None else {"saved_best_step": state.step, "saved_best_loss": loss}
        manifest = dataclasses.replace(
            self._manifest,
            step=state.step,
            saved_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            state={**dataclasses.asdict(state), **kept},
        )
        return _Copy(manifest, tensors, loss)

    def _begin(self, copy: "_Copy | None", what_next: str, since: float) -> None:
        """Start writing the best, if it is not committed, and a new copy, if there is one."""
        state = self.state
        if copy is not None and copy.loss is not None:
            self._best = copy
        copies = [one for one in (self._best, None if copy is self._best else copy) if one is not None]
        attempt = self._num_failures + 1
        reached, best_step, kept_step = state.step, state.best_step, state.saved_best_step

        def write(one: _Copy) -> None:
            nonlocal kept_step
            # Once it is there, it takes the place of the best before.
            best = frozenset(step for step in (best_step, one.best_step or kept_step) if step is not None)
            retention = Retention(self.config.keep_checkpoints, self.config.keep_every, best, reached)
            try:
                self._writer.write(one.manifest, one.tensors, retention)
                kept_step = one.best_step or kept_step
            except SaveError as error:
                if self.group.rank == 0:
                    kept = "its weights, the best so far, are kept in memory until then; " if one is self._best else ""
                    count = f"{kept}{attempt} of {self.config.save_attempts}"
                    logger.warning(
                        "checkpoint of step %d could not be written (%s); %s; %s", one.step, error, what_next, count
                    )
                raise

        self._thread = _Thread(copies, write, since)
        self._thread.start()

    def _note(self, copy: "_Copy") -> None:
        """Take note that a copy is committed."""
        self.saved_step = copy.step if self.saved_step is None else max(self.saved_step, copy.step)
        if copy.loss is not None:
            self.state.saved_best_step, self.state.saved_best_loss = copy.step, copy.loss
        if copy is self._best:
            self._best = None

    def _give_up_after_too_many(self, last: SaveError) -> None:
        if self._num_failures < self.config.save_attempts:
            return
        error = UnreachableError(
            f"{self._num_failures} saves in a row could not be written to {self.config.run}, the last since "
            f"{last}; {self._what_is_there()}; make room or give another train.run, then start again"
        )
        # All ranks count alike.
        error.told = self.group.rank != 0
        raise error

    def _silent(self, what: str) -> SilentStoreError:
        """What to raise, on every rank, when the thread may never end."""
        self._given_up = True
        error = SilentStoreError(f"{what}; {self._what_is_there()}; check the store, then start again")
        error.told = self.group.rank != 0
        return error

    def _what_is_there(self) -> str:
        saved = self.saved_step
        newest = "there is no checkpoint" if saved is None else f"the newest is that of step {saved}"
        if self._best is None:
            return newest
        loss = "" if self._best.loss is None else f" (validation loss {self._best.loss:.4f})"
        return f"{newest}; the best weights, of step {self._best.step}{loss}, are lost with this process"

    def _constants(self, config: RunConfig, data: Manifest, engine: Engine) -> CheckpointManifest:
        """What all checkpoints of the run say."""
        options = recorded_options(config)
        return CheckpointManifest(
            step=0,
            saved_at="",
            engine=engine.name,
            world_size=self.group.world_size,
            global_batch=config.train.global_batch,
            config=options,
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
    def step(self) -> int:
        """Of the run."""
        return self.manifest.step

    @property
    def best_step(self) -> int | None:
        """The same, where these are the best weights."""
        return None if self.loss is None else self.step


class _Thread(threading.Thread):
    """Writes copies, one after another. It is a daemon: nothing that it does may keep a process from ending.

    Args:
        copies: at least one.
        write: writes one.
        since: when the save began, by the monotonic clock.

    Attributes:
        step: of the last copy.
        committed: those that were written.
        failure: why the last one was not.
        error: what ended the thread, if anything did.
    """

    def __init__(self, copies: list[_Copy], write: Callable[[_Copy], None], since: float) -> None:
        self.step = copies[-1].step
        super().__init__(name=f"checkpoint-{self.step}", daemon=True)
        self._copies, self._write, self.since = copies, write, since
        self.committed: list[_Copy] = []
        self.failure: SaveError | None = None
        self.error: Exception | None = None

    @property
    def seconds(self) -> float:
        """How long ago the save began."""
        return time.monotonic() - self.since

    def run(self) -> None:
        """Write."""
        try:
            for copy in self._copies:
                self._attempt(copy)
        except Exception as error:  # Whoever waits for the thread raises it.
            self.error = error

    def _attempt(self, copy: _Copy) -> None:
        self.failure = None
        try:
            self._write(copy)
            self.committed.append(copy)
        except SaveError as error:
            self.failure = error
