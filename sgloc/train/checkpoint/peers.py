"""The ranks that write and read checkpoints together, in a process group of their own."""

import datetime
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from sgloc.data.threads import PATIENT_SHARE, Patience
from sgloc.dist import on_rank_0
from sgloc.torch_versions import silent_gloo

Value = TypeVar("Value")


class Peers:
    """All ranks, in a group that nothing else uses: a thread may write while training goes on in the others.

    Its collectives work on host memory, whatever training runs on. All ranks must make it together.

    Args:
        timeout: seconds that a collective waits for a rank.
    """

    def __init__(self, timeout: float) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        # Less than what the others wait.
        self._patience = Patience(PATIENT_SHARE * timeout, "the store of the checkpoints")
        with silent_gloo():
            self._group: Any = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout))

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, in order of rank. All ranks must call it."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def from_rank_0(self, action: Callable[[], Value]) -> Value:
        """What an action gives on rank 0, on every rank; most of the timeout is its limit. All ranks must call this.

        Raises:
            SglocError, OtherRankError: as `sgloc.dist.on_rank_0`.
            SilentStoreError: on every rank, if the action takes longer.
        """
        return on_rank_0(lambda: self._patience(action), self._group)

    def broadcast(self, values: Tensor) -> None:
        """Fill a tensor in host memory with that of rank 0. All ranks must call it."""
        dist.broadcast(values, src=0, group=self._group)

    def close(self) -> None:
        """Let go of the group."""
        dist.destroy_process_group(self._group)
        self._group = None
