"""The device and the process group of this process, and the few collectives that the rest needs."""

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

# When it is imported it takes the default group of then, if there is one, as a default of arguments, and keeps it, so
# that gloo's threads outlive it and may abort the process as it ends. torch.optim imports it at the first step.
import torch.distributed.nn
from torch import Tensor

from sgloc.errors import ConfigError, LostRankError, OtherRankError, SglocError
from sgloc.faults import as_told, exit_code_of, leave_verdict
from sgloc.placement import Placement as Placement
from sgloc.placement import resolve_placement as resolve_placement
from sgloc.threads import PATIENT_SHARE, Patience
from sgloc.torch_versions import silent_gloo

# Until all processes of a run have met.
_MEETING_TIMEOUT = datetime.timedelta(minutes=30)
# Seconds that ranks wait for each other, unless a run says otherwise.
DEFAULT_TIMEOUT = 1800.0

Value = TypeVar("Value")
Failure = TypeVar("Failure", bound=SglocError)


def select_device(wanted: str, placement: Placement) -> torch.device:
    """The device of this process for "auto", "cpu" or "cuda".

    Raises:
        ConfigError: if CUDA is asked for and there is none, or there are fewer devices than processes on this machine.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "the device is to be cuda, but torch sees no CUDA device; "
            "ask for the device cpu, or install a CUDA build of torch"
        )
    num_devices = torch.cuda.device_count()
    if placement.launcher == "srun" and num_devices == 1:
        # Slurm binds a GPU to each task, which then sees no other (--gpus-per-task, --gpu-bind).
        return torch.device("cuda", 0)
    if placement.local_rank >= num_devices:
        raise ConfigError(
            f"process {placement.local_rank} of this machine has no CUDA device of its own; there are {num_devices}"
        )
    return torch.device("cuda", placement.local_rank)


def use_device(device: torch.device) -> None:
    """Make it the one that "cuda" without a number means.

    Until then that is the first GPU, on which every library that asks for one would take some hundred MiB, in every
    process of the machine.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)


def backend(device: torch.device) -> str:
    """The backend of collectives between processes on such devices."""
    return "nccl" if device.type == "cuda" else "gloo"


@contextlib.contextmanager
def process_group(placement: Placement, device: torch.device, timeout: float = DEFAULT_TIMEOUT) -> Iterator["Group"]:
    """The default process group, of one process too, so that there is one way through the code: nccl on CUDA, gloo
    elsewhere.

    Args:
        placement: of this process.
        device: of this process.
        timeout: seconds that a collective waits for a rank.

    Raises:
        ConfigError: if the processes cannot meet.
    """
    if placement.launcher == "plain":
        store: dist.Store = dist.HashStore()
    else:
        agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        store = _meet(placement, serve=placement.rank == 0 and not agent_serves)
        if agent_serves:
            # A restarted attempt must not find the keys of the one before. Where rank 0 serves, there are none; and
            # agents of an elastic run do not count alike.
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
            f"port {placement.port} of {placement.address}, where all processes meet, cannot be "
            f"{'served' if serve else 'reached'} by rank {placement.rank} ({error}); check that rank 0 runs there, "
            "that no firewall is between, and that nothing else uses the port, or set MASTER_ADDR and MASTER_PORT"
        ) from error


class Group:
    """All ranks, and the few collectives that the rest needs. All ranks must call every method together.

    Args:
        device: where numbers are added up; None: the CPU.
        timeout: seconds that the ranks wait for each other.

    Attributes:
        rank: of this process.
        world_size: the number of processes.
        device, timeout: as given.
    """

    def __init__(self, device: torch.device | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.device, self.timeout = device or torch.device("cpu"), timeout
        # Shared with the copies that ask stores: whoever holds torch's group last joins its threads.
        self._handle: list[Any] = [None]
        self._patience: Patience | None = None

    def separate(self) -> "Group":
        """The same ranks in a group of their own, which works on host memory: a thread may use it while training goes
        on in the default one. It must be closed."""
        group = Group(timeout=self.timeout)
        with silent_gloo():
            group._handle[0] = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=self.timeout))
        return group

    def asking(self, store: str) -> "Group":
        """The same group, whose functions ask a store: each may take most of the time that the ranks wait, so that the
        rank whose store is silent is the one to say so.

        Args:
            store: the subject of the sentence, such as "the store of runs/mine".
        """
        group = copy.copy(self)
        group._patience = Patience(PATIENT_SHARE * self.timeout, store)
        return group

    def close(self) -> None:
        """Destroy a group that `separate` made."""
        dist.destroy_process_group(self._handle[0])
        self._handle[0] = None

    def on_rank_0(self, function: Callable[[], Value]) -> Value:
        """Call a function on rank 0 alone, and return its result on every rank.

        Raises:
            SglocError: on every rank, if the function raised it.
            OtherRankError: on the other ranks, if it raised anything else; rank 0 raises that itself.
            SilentStoreError: on every rank, if it asks a store that does not answer.
        """
        value, error = None, None
        if self.rank == 0:
            value, error = self._attempt(function)
            if error is None:
                # In the collective itself, a value that cannot be pickled would leave the others waiting.
                _, error = self._attempt(lambda: pickle.dumps(value))
        outcome: list[Any] = [None if error else value, _for_others(error, 0)]
        dist.broadcast_object_list(outcome, src=0, group=self._handle[0])
        self._raise_first([outcome[1]], error)
        return value if self.rank == 0 else outcome[0]  # type: ignore[return-value]

    def on_each_rank(self, function: Callable[[], Value]) -> Value:
        """Call a function on every rank, and return this rank's result; where it raises on some rank, all ranks raise.

        Raises:
            SglocError: on every rank, what the function raised on the first rank where it did.
            OtherRankError: on the other ranks, if it raised anything else there; that rank raises it itself.
            SilentStoreError: as `on_rank_0`.
        """
        value, error = self._attempt(function)
        self._raise_first(self.gather(_for_others(error, self.rank)), error)
        return value  # type: ignore[return-value]

    def told_once(self, error: Failure) -> Failure:
        """An error that all ranks are about to raise, as this rank raises it: rank 0 alone tells it."""
        error.told = self.rank != 0
        return error

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, in order of rank."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._handle[0])
        return values

    def broadcast(self, values: Tensor) -> None:
        """Fill a tensor on the group's device with that of rank 0."""
        dist.broadcast(values, src=0, group=self._handle[0])

    def sum(self, values: list[float]) -> list[float]:
        """Sums over the ranks, in float64, of one number after the other."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, group=self._handle[0])
        return tensor.tolist()

    def max(self, value: float) -> float:
        """The largest of the ranks' numbers."""
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._handle[0])
        return float(tensor)

    def _attempt(self, function: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
        """The function's result, or what it raises. That another rank is lost is raised here: no rank is left to hear
        the error."""
        try:
            return (function() if self._patience is None else self._patience(function)), None
        except Exception as error:
            if lost_rank(error):
                raise
            return None, error

    def _raise_first(self, errors: Sequence[SglocError | None], own: Exception | None) -> None:
        """Raise the first of the ranks' errors, if there is one; but this rank's own, if that is it, or a fault."""
        for rank, error in enumerate(errors):
            if own is not None and (rank == self.rank or not isinstance(own, SglocError)):
                raise own
            if error is not None:
                error.told = not isinstance(error, OtherRankError)
                raise error


def _for_others(error: Exception | None, rank: int) -> SglocError | None:
    """What ranks other than the one that met an error raise."""
    if error is None:
        return None
    if isinstance(error, SglocError):
        with contextlib.suppress(Exception):
            # Copying builds it anew, as unpickling does: errors with arguments of their own may fail there.
            pickle.dumps(copy.copy(error))
            return error
    said = " ".join(f"{type(error).__name__}: {error}".split())
    other = OtherRankError(f"rank {rank} failed ({said}); what it said last tells where")
    other.exit_code = exit_code_of(as_told(error))
    return other


# gloo begins with the file and line of its source, but for what it says once a connection has timed out before.
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
    """What an error says of another process, if it is one of a collective or the store: by gloo, nccl or torch.

    Returns:
        "gone": it has ended; "silent": it did not take part in time; empty: nothing.
    """
    said = str(error).lower()
    # gloo raises plain RuntimeErrors; so do CUDA and Triton, which time out, too.
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
    """Turn a collective's error into one that says that another rank is gone, or silent.

    Args:
        timeout: of the collectives, in seconds.

    Raises:
        LostRankError: in place of the error.
    """
    try:
        yield
    except RuntimeError as error:
        lost = lost_rank(error)
        if lost == "gone":
            raise LostRankError("another process of this run is gone; what it said last tells why") from error
        if lost == "silent":
            raise LostRankError(
                f"another process of this run has not answered for {timeout:.0f} s (train.timeout); "
                "start again, and the run goes on from its newest checkpoint"
            ) from error
        raise
