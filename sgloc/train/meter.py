"""How fast a run trains."""

import contextlib
import time
from collections.abc import Iterator

from sgloc.dist import Group
from sgloc.memory import peak_memory
from sgloc.train.loggers.base import Record
from sgloc.train.state import TrainState


class Meter:
    """Speed since the last reading, over all ranks; and the run's training time, over all restarts.

    Args:
        state: of the run; its seconds are kept up to date.
        global_batch: sketches in a step over all ranks.
        group: of the ranks.
    """

    def __init__(self, state: TrainState, global_batch: int, group: Group) -> None:
        self.state, self.global_batch, self.group = state, global_batch, group
        self._run_start = time.perf_counter() - state.seconds
        self._begin()

    def _begin(self) -> None:
        self._start, self._waited, self._num_steps, self._num_points = time.perf_counter(), 0.0, 0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent inside is time spent waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def count(self, num_points: int) -> None:
        """Count a step on a batch of so many points on this rank."""
        self._num_steps += 1
        self._num_points += num_points
        self.state.seconds = time.perf_counter() - self._run_start

    def read(self) -> Record:
        """The measurements since the last reading. All ranks must call it together."""
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
