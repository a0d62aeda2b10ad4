"""The training loop."""

import contextlib
import time
from collections.abc import Iterator

from sgloc import dist
from sgloc.config import RunConfig
from sgloc.errors import LostRankError
from sgloc.failpoint import failpoint
from sgloc.memory import peak_memory
from sgloc.train.loggers.protocol import Record
from sgloc.train.opening import open_session
from sgloc.train.recipe import Recipe
from sgloc.train.schedule import learning_rate
from sgloc.train.session import Session
from sgloc.train.state import TrainState


def train(config: RunConfig, resume: str, recipe: Recipe) -> None:
    """Train until the steps are done, validation no longer improves, or a signal says stop.

    Args:
        config: of the run.
        resume: "auto" to go on from the newest whole checkpoint of the run's folder, if there is one; "never"; or a
            checkpoint's folder.
        recipe: of the model.

    Raises:
        SglocError: if the configuration, the shards or the checkpoint cannot be used, or the loss is not finite.
    """
    try:
        _train(config, resume, recipe)
    except RuntimeError as error:
        if dist.is_lost_peer(error):
            raise LostRankError("another process of this run is gone; what it said last tells why") from error
        if dist.is_timeout(error):
            raise LostRankError(
                f"another process of this run has not answered for {config.train.timeout:.0f} s (train.timeout); "
                "start again, and the run goes on from its newest checkpoint"
            ) from error
        raise


def _train(config: RunConfig, resume: str, recipe: Recipe) -> None:
    with open_session(config, resume, recipe) as session, contextlib.closing(session.feed()) as feed:
        state, every = session.state, config.train
        meter = _Meter(session)
        # What a stop cut short is done first; and the best may be here, but not in this run's folder.
        if session.validate_if_due() or session.kept_loss is not None:
            session.save()
        while not (session.is_stopped or session.is_finished):
            with meter.waiting():
                packed, loaded = feed.next()
            rate = learning_rate(config.optimizer, state.step)
            failpoint("step", state.step + 1)
            session.engine.model.begin_step(state.step)
            losses, gradient_norm = session.engine.backward(session.prepare(loaded, session.device))
            state.step += 1
            if session.account(losses, gradient_norm, packed):
                session.engine.update(rate)
            else:
                session.engine.discard()
            meter.count(packed.num_points)
            if state.step % every.log_every == 0:
                session.log_training(gradient_norm, rate, {**meter.read(), **feed.counts()})
            if session.validate_if_due() or state.step % every.checkpoint_every == 0:
                session.save()
        session.save_at_last()
        session.say(_farewell(session))


class _Meter:
    """Speed since the last reading, over all ranks; and the run's training time, over all restarts."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.run_start = time.perf_counter() - session.state.seconds
        self._begin()

    def _begin(self) -> None:
        self.start, self.waited, self.num_steps, self.num_points = time.perf_counter(), 0.0, 0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent inside is time spent waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def count(self, num_points: int) -> None:
        """One more step is done, on a batch of this many points on this rank."""
        self.num_steps += 1
        self.num_points += num_points
        self.session.state.seconds = time.perf_counter() - self.run_start

    def read(self) -> Record:
        """What was measured, and begin again. All ranks must call it."""
        device, elapsed = self.session.device, time.perf_counter() - self.start
        num_points, waited = dist.sum_over_ranks([float(self.num_points), self.waited], device)
        record = {
            "sketches_per_second": self.num_steps * self.session.config.train.global_batch / elapsed,
            "points_per_second": num_points / elapsed,
            "data_wait_share": waited / elapsed / self.session.placement.world_size,
            "peak_memory_mib": dist.max_over_ranks(peak_memory(device), device),
            "seconds": self.session.state.seconds,
        }
        self._begin()
        return record


def _farewell(session: Session) -> str:
    state, run_dir = session.state, session.config.train.run
    if session.is_stopped:
        return f"stopped by a signal at step {state.step}; the same command goes on from there"
    reason = "all steps are done" if state.step >= session.config.train.num_steps else "validation no longer improves"
    best = f"best validation loss {state.best_loss:.4f} at step {state.best_step}"
    if session.is_best_lost:
        best += f", whose weights are not there; the best that are: {_saved_best(state)}"
    return f"finished at step {state.step}, {reason}; {best}, in {run_dir}"


def _saved_best(state: TrainState) -> str:
    if state.saved_best_step is None:
        return "none"
    return f"{state.saved_best_loss:.4f} at step {state.saved_best_step}"
