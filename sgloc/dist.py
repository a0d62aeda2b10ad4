"""Device selection, the process group, and the collectives that the program uses."""

import contextlib
import copy
import datetime
import os
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

# Imported now, while there is no default group: torch.distributed.nn binds the current default group as an argument
# default at import time. That reference would keep gloo's threads alive until exit, where they may abort the process.
# torch.optim imports the module at the first step.
import torch.distributed.nn
from torch import Tensor

from sgloc.errors import ConfigError, LostRankError, OtherRankError, SglocError
from sgloc.faults import as_told, exit_code_of, leave_verdict
from sgloc.placement import Placement as Placement
from sgloc.placement import resolve_placement as resolve_placement
from sgloc.threads import PATIENT_SHARE, Patience
from sgloc.torch_versions import silent_gloo

# How long a rank waits at startup for the others to connect.
_MEETING_TIMEOUT = datetime.timedelta(minutes=30)
# Timeout of collectives in seconds, unless a run sets another.
DEFAULT_TIMEOUT = 1800.0

Value = TypeVar("Value")
Failure = TypeVar("Failure", bound=SglocError)


def select_device(wanted: str, placement: Placement) -> torch.device:
    """Return the device of this process for "auto", "cpu" or "cuda".

    Raises:
        ConfigError: if CUDA is requested but not available, or this machine has fewer CUDA devices than processes.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "the device is set to cuda, but torch sees no CUDA device; set it to cpu, or install a CUDA build of torch"
        )
    num_devices = torch.cuda.device_count()
    if placement.launcher == "srun" and num_devices == 1:
        # Slurm binds one GPU to each task (--gpus-per-task, --gpu-bind), so that every task sees only its own.
        return torch.device("cuda", 0)
    if placement.local_rank >= num_devices:
        raise ConfigError(
            f"process {placement.local_rank} of this machine has no CUDA device of its own; there are {num_devices}"
        )
    return torch.device("cuda", placement.local_rank)


def use_device(device: torch.device) -> None:
    """Make a CUDA device the current one, which "cuda" without an index refers to.

    The default is GPU 0, on which libraries that use the current device would allocate a few hundred MiB in every
    process of the machine.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)


def backend(device: torch.device) -> str:
    """Return the backend for collectives on a device."""
    return "nccl" if device.type == "cuda" else "gloo"


@contextlib.contextmanager
def process_group(placement: Placement, device: torch.device, timeout: float = DEFAULT_TIMEOUT) -> Iterator["Group"]:
    """Create the default process group and destroy it at the end; the backend is nccl on CUDA, else gloo.

    A single process gets a group too, so that the rest of the program has only one code path.

    Args:
        placement: placement of this process.
        device: device of this process.
        timeout: timeout of collectives in seconds.

    Raises:
        ConfigError: if the processes cannot connect.
    """
    if placement.launcher == "plain":
        store: dist.Store = dist.HashStore()
    else:
        agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        store = _meet(placement, serve=placement.rank == 0 and not agent_serves)
        if agent_serves:
            # A restarted attempt must not find the keys of the previous one. A store served by rank 0 is always new; it
            # needs no prefix, which must be avoided there, as the agents of an elastic run may count restarts
            # differently.
            store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    use_device(device)
    with silent_gloo():
        dist.init_process_group(
            backend(device),
            store=store,
            rank=placement.rank,
            world_size=placement.world_size,
            timeout=datetime.timedelta(seconds=timeout),
        )
    try:
        yield Group(device, timeout)
    except Exception as error:
        leave_verdict(exit_code_of(as_told(error)))
        raise
    finally:
        dist.destroy_process_group()


def _meet(placement: Placement, *, serve: bool) -> dist.Store:
    try:
        return dist.TCPStore(placement.address, placement.port, None, is_master=serve, timeout=_MEETING_TIMEOUT)
    except dist.DistNetworkError as error:
        raise ConfigError(
            f"port {placement.port} of {placement.address}, the rendezvous of all processes, cannot be "
            f"{'served' if serve else 'reached'} by rank {placement.rank} ({error}); check that rank 0 runs there, "
            "that no firewall blocks the port and that nothing else uses it, or set MASTER_ADDR and MASTER_PORT"
        ) from error


class Group:
    """A process group of all ranks, with the collectives that the program uses.

    All methods except `asking` and `told_once` are collective: all ranks must call them together.

    Args:
        device: device for reductions of numbers; None for the CPU.
        timeout: timeout of collectives in seconds.

    Attributes:
        rank: rank of this process.
        world_size: number of processes.
        device, timeout: the arguments.
    """

    def __init__(self, device: torch.device | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.device, self.timeout = device or torch.device("cpu"), timeout
        # A list shared with the copies made by `asking`, so that `close` drops torch's group in all of them: whoever
        # drops the last reference joins the group's threads.
        self._handle: list[Any] = [None]
        self._patience: Patience | None = None

    def separate(self) -> "Group":
        """Create a separate gloo group of the same ranks, on host memory, which the caller must close.

        A thread may use it while training uses the default group.
        """
        group = Group(timeout=self.timeout)
        with silent_gloo():
            group._handle[0] = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=self.timeout))
        return group

    def asking(self, store: str) -> "Group":
        """Return this group for calling functions that access a store, each limited to most of the group's timeout.

        The limit is below the timeout so that the rank whose store hangs reports it before the other ranks time out.

        Args:
            store: name of the store, the subject of the error message, such as "the store of runs/mine".
        """
        group = copy.copy(self)
        group._patience = Patience(PATIENT_SHARE * self.timeout, store)
        return group

    def close(self) -> None:
        """Destroy a group created by `separate`."""
        dist.destroy_process_group(self._handle[0])
        self._handle[0] = None

    def on_rank_0(self, function: Callable[[], Value]) -> Value:
        """Call a function on rank 0 only, and return its result on every rank.

        Raises:
            SglocError: on every rank, if the function raised it.
            OtherRankError: on the other ranks, if the function raised any other exception; rank 0 raises the original.
            SilentStoreError: on every rank, if a store that the function accesses does not answer.
        """
        value, error = None, None
        if self.rank == 0:
            value, error = self._attempt(function)
            if error is None:
                # Pickle here first: if it failed inside the collective, the other ranks would hang.
                _, error = self._attempt(lambda: pickle.dumps(value))
        outcome: list[Any] = [None if error else value, _for_others(error, 0)]
        dist.broadcast_object_list(outcome, src=0, group=self._handle[0])
        self._raise_first([outcome[1]], error)
        return value if self.rank == 0 else outcome[0]  # type: ignore[return-value]

    def on_each_rank(self, function: Callable[[], Value]) -> Value:
        """Call a function on every rank, and return this rank's result; if it raises on any rank, all ranks raise.

        Raises:
            SglocError: on every rank, the error of the first rank where the function raised one.
            OtherRankError: on the other ranks, if that was any other exception; the rank itself raises the original.
            SilentStoreError: see `on_rank_0`.
        """
        value, error = self._attempt(function)
        self._raise_first(self.gather(_for_others(error, self.rank)), error)
        return value  # type: ignore[return-value]

    def told_once(self, error: Failure) -> Failure:
        """Mark an error that all ranks are about to raise, so that only rank 0 reports it; return the error."""
        error.told = self.rank != 0
        return error

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in order of rank."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._handle[0])
        return values

    def broadcast(self, values: Tensor) -> None:
        """Overwrite a tensor on the group's device with rank 0's."""
        dist.broadcast(values, src=0, group=self._handle[0])

    def sum(self, values: list[float]) -> list[float]:
        """Return the elementwise sums over the ranks, in float64."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, group=self._handle[0])
        return tensor.tolist()

    def max(self, value: float) -> float:
        """Return the maximum over the ranks."""
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._handle[0])
        return float(tensor)

    def _attempt(self, function: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
        """Return the function's result and its exception, one of which is None.

        The exception of a lost rank is raised instead: a collective that shares it with the other ranks would fail too.
        """
        try:
            return (function() if self._patience is None else self._patience(function)), None
        except Exception as error:
            if lost_rank(error):
                raise
            return None, error

    def _raise_first(self, errors: Sequence[SglocError | None], own: Exception | None) -> None:
        """Raise the first of the ranks' errors, if any; this rank's own if that comes first or is an internal error."""
        for rank, error in enumerate(errors):
            if own is not None and (rank == self.rank or not isinstance(own, SglocError)):
                raise own
            if error is not None:
                error.told = not isinstance(error, OtherRankError)
                raise error


def _for_others(error: Exception | None, rank: int) -> SglocError | None:
    """Return the error for the other ranks to raise when this rank has raised one."""
    if error is None:
        return None
    if isinstance(error, SglocError):
        with contextlib.suppress(Exception):
            # Copy it as a test: like unpickling, copying rebuilds the error, which may fail for custom arguments.
            pickle.dumps(copy.copy(error))
            return error
    said = " ".join(f"{type(error).__name__}: {error}".split())
    other = OtherRankError(f"rank {rank} failed ({said}); see its last log lines for details")
    other.exit_code = exit_code_of(as_told(error))
    return other


# gloo's messages begin with its source file and line, except the one about a connection that has timed out before.
_GLOO = re.compile(r"\[[^\]\s]*gloo[^\]\s]*:\d+\]|application timeout caused pair closure")
_LOST_PHRASES = (
    "connection closed by",
    "connection reset by peer",
    "broken pipe",
    "connection was likely closed",
    "remote process exited",
)
_TIMEOUT_PHRASES = ("timed out", "timeout")


def lost_rank(error: BaseException) -> Literal["gone", "silent", ""]:
    """Tell from an error of a collective or its store (gloo, nccl, torch) whether another rank is lost.

    Returns:
        "gone": the other process has ended; "silent": it did not respond in time; empty: nothing.
    """
    said = str(error).lower()
    # gloo raises plain RuntimeErrors, but so do CUDA and Triton, whose messages may also mention timeouts.
    is_of_collective = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and _GLOO.match(said))
    if not is_of_collective or "cuda error" in said or "cuda failure" in said:
        return ""
    if any(phrase in said for phrase in _LOST_PHRASES):
        return "gone"
    if any(phrase in said for phrase in _TIMEOUT_PHRASES):
        return "silent"
    return "gone" if isinstance(error, dist.DistNetworkError) else ""


@contextlib.contextmanager
def explaining_lost_ranks(timeout: float) -> Iterator[None]:
    """Replace a collective's error by one that explains that another rank has died or does not respond.

    Args:
        timeout: timeout of the collectives in seconds.

    Raises:
        LostRankError: in place of the original error.
    """
    try:
        yield
    except RuntimeError as error:
        lost = lost_rank(error)
        if lost == "gone":
            raise LostRankError("another process of this run has died; see its last log lines for the cause") from error
        if lost == "silent":
            raise LostRankError(
                f"another process of this run has not answered for {timeout:.0f} s (train.timeout); "
                "start again to resume from the newest checkpoint"
            ) from error
        raise
