"""Training throughput."""

import contextlib
import time
from collections.abc import Iterator

from sgloc.dist import Group
from sgloc.memory import peak_memory
from sgloc.train.loggers.base import Record
from sgloc.train.state import TrainState


class Meter:
    """Measures throughput of all ranks between readings, and the run's total training time across restarts.

    Args:
        state: the run's state; `count` updates its `seconds`.
        global_batch: number of sketches per step over all ranks.
        group: group of the ranks.
    """

    def __init__(self, state: TrainState, global_batch: int, group: Group) -> None:
        self.state, self.global_batch, self.group = state, global_batch, group
        self._run_start = time.perf_counter() - state.seconds
        self._begin()

    def _begin(self) -> None:
        self._start, self._waited, self._num_steps, self._num_points = time.perf_counter(), 0.0, 0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent inside the block as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def count(self, num_points: int) -> None:
        """Count one step, on a batch of `num_points` points on this rank."""
        self._num_steps += 1
        self._num_points += num_points
        self.state.seconds = time.perf_counter() - self._run_start

    def read(self) -> Record:
        """Return the measurements since the last reading. Collective."""
        elapsed = time.perf_counter() - self._start
        num_points, waited = self.group.sum([float(self._num_points), self._waited])
        record = {
            "sketches_per_second": self._num_steps * self.global_batch / elapsed,
            "points_per_second": num_points / elapsed,
            "data_wait_share": waited / elapsed / self.group.world_size,
            "peak_memory_mib": self.group.max(peak_memory(self.group.device)),
            "seconds": self.state.seconds,
        }
        self._begin()
        return record
