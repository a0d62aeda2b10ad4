"""What a run saves, when, and what becomes of a save that fails."""

import dataclasses
import datetime
import threading
import time
from collections.abc import Callable

from sgloc.config import RunConfig
from sgloc.data.manifest import Manifest
from sgloc.errors import UnreachableError
from sgloc.train.checkpoint import CheckpointManifest, Peers, Retention, SaveError, Writer, share_out
from sgloc.train.checkpoint.writing import shard_name
from sgloc.train.engine import Engine
from sgloc.train.recorded import recorded_options
from sgloc.train.state import TrainState
from sgloc.train.versions import versions

# Waiting longer for the save before is worth a word.
_NOTICEABLE_SECONDS = 1.0
# Before a last save is tried again, times the number of those that failed.
_PAUSE_SECONDS = 2.0


class Saving:
    """Saves a run's checkpoints, while it goes on. All ranks must make it, and call it, together.

    The run waits for the copy to host memory only; a thread writes it, through collectives of its own. At most one
    checkpoint is being written: the next save waits for it, and takes note of how it went.

    Args:
        config: of the run.
        data: manifest of its shards.
        engine: that trains; it is asked for its layout now, and for its tensors at every save.
        peers: the ranks.
        saved_step: of the run's newest checkpoint; None when it has none.
        say: rank 0 tells through it of saves that failed or took long.
        check: raises ConfigError once the run must not write into its folder any more.
    """

    def __init__(
        self,
        config: RunConfig,
        data: Manifest,
        engine: Engine,
        peers: Peers,
        saved_step: int | None,
        *,
        say: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.peers = config.train, peers
        self.saved_step = saved_step
        self._say = say if peers.rank == 0 else lambda sentence: None
        self._writer = Writer(config.train.run_dir, peers, self._say, check)
        self._manifest = self._constants(config, data, engine)
        shard = shard_name(peers.rank, peers.world_size)
        self._own = {name for name, entry in self._manifest.tensors.items() if entry.file == shard}
        self._num_failures = 0
        self._thread: _Thread | None = None

    def save(self, engine: Engine, state: TrainState) -> None:
        """Begin to save a checkpoint of this step, once the one before is written.

        Raises:
            UnreachableError: on every rank, if too many in a row could not be written, up to the one before.
        """
        self.wait()
        self._begin(engine, state, "the next is tried at the next save")

    def save_at_last(self, engine: Engine, state: TrainState) -> None:
        """Save a checkpoint of this step, unless there is one, and wait until it is committed.

        Raises:
            UnreachableError: on every rank, if it cannot be written, as often as it is tried.
        """
        self.wait()
        self._num_failures = 0
        while self.saved_step != state.step:
            time.sleep(_PAUSE_SECONDS * self._num_failures)
            self._begin(engine, state, "it is tried again")
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written, and take note of how it went.

        Raises:
            UnreachableError: on every rank, if too many in a row could not be written.
        """
        if self._thread is None:
            return
        thread, start, self._thread = self._thread, time.monotonic(), None
        thread.join()
        waited = time.monotonic() - start
        if waited > _NOTICEABLE_SECONDS:
            self._say(f"training waited {waited:.1f} s for the checkpoint of step {thread.step} to be written")
        if isinstance(thread.error, SaveError):
            self._num_failures += 1
            self._give_up_after_too_many(thread.error)
        elif thread.error is not None:
            raise thread.error
        else:
            self._num_failures, self.saved_step = 0, thread.step

    def close(self) -> None:
        """Wait for what is being written, however it goes; nothing more is saved."""
        if self._thread is not None:
            # Where other ranks are gone, its collectives end by themselves; a store may never answer.
            self._thread.join(self.config.timeout)

    def _begin(self, engine: Engine, state: TrainState, what_next: str) -> None:
        """Copy, and start writing."""
        tensors = engine.snapshot(self._own.__contains__)
        # Here, for this may take torch's threads.
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        manifest = dataclasses.replace(
            self._manifest,
            step=state.step,
            saved_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            state=dataclasses.asdict(state),
        )
        attempt = self._num_failures + 1
        retention = Retention(self.config.keep_checkpoints, self.config.keep_every, state.best_step)

        def write() -> None:
            try:
                self._writer.write(manifest, tensors, retention)
            except SaveError as error:
                self._say(
                    f"checkpoint of step {manifest.step} could not be written ({error}); "
                    f"{what_next}; {attempt} of {self.config.save_attempts}"
                )
                raise

        self._thread = _Thread(manifest.step, write)
        self._thread.start()

    def _give_up_after_too_many(self, last: SaveError) -> None:
        if self._num_failures < self.config.save_attempts:
            return
        since = "there is no checkpoint" if self.saved_step is None else f"the newest is that of step {self.saved_step}"
        error = UnreachableError(
            f"{self._num_failures} saves in a row could not be written to {self.config.run_dir}, the last since "
            f"{last}; {since}; make room or give another --train.run_dir, then start again"
        )
        # All ranks count alike.
        error.told = self.peers.rank != 0
        raise error

    def _constants(self, config: RunConfig, data: Manifest, engine: Engine) -> CheckpointManifest:
        """What all checkpoints of the run say."""
        options = recorded_options(config)
        return CheckpointManifest(
            step=0,
            saved_at="",
            engine=engine.name,
            world_size=self.peers.world_size,
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
            tensors=share_out(engine.layout(), self.peers.world_size),
            files={},
        )


class _Thread(threading.Thread):
    """Writes a checkpoint. It is a daemon, for nothing that it does may keep a process that failed from ending.

    Attributes:
        step: of the checkpoint.
        error: what the writing raised, if anything.
    """

    def __init__(self, step: int, write: Callable[[], None]) -> None:
        super().__init__(name=f"checkpoint-{step}", daemon=True)
        self.step, self._write = step, write
        self.error: Exception | None = None

    def run(self) -> None:
        """Write."""
        try:
            self._write()
        except Exception as error:  # Whoever waits for the thread raises it.
            self.error = error
