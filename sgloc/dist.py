"""Who this process is among others: one resolver for a plain start, torchrun and srun, and the few collectives that the
rest needs."""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from sgloc.errors import ConfigError, SglocError

# Until all processes of a run have met.
_MEETING_TIMEOUT = datetime.timedelta(minutes=30)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Placement:
    """This process's place.

    Attributes:
        launcher: who started it: "plain" (one process), "torchrun" or "srun".
        rank: its number among all processes.
        local_rank: its number on its machine.
        world_size: the number of processes.
        address, port: where rank 0 is met; not used when there is one process.
    """

    launcher: Literal["plain", "torchrun", "srun"]
    rank: int
    local_rank: int
    world_size: int
    address: str
    port: int


def resolve_placement(environment: Mapping[str, str]) -> Placement:
    """Read the place from the environment that a launcher set.

    Raises:
        ConfigError: if the environment is only half set, or holds what is not a number; it names the variable.
    """
    if any(name in environment for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        launcher: Literal["torchrun", "srun"] = "torchrun"
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    elif "SLURM_STEP_ID" in environment and environment.get("SLURM_NTASKS") != "1":
        # Only srun sets a step; a batch script has the other variables too, and is one process.
        names, launcher = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"), "srun"
    else:
        return Placement("plain", 0, 0, 1, "localhost", 0)
    values = {}
    for name in (*names, "MASTER_ADDR", "MASTER_PORT"):
        if name not in environment:
            raise ConfigError(
                f"{name} is not set although this looks like a process of {launcher}; "
                "start with torchrun or srun, or unset the others"
            )
        values[name] = environment[name]
        if name != "MASTER_ADDR" and not values[name].isdecimal():
            raise ConfigError(f"{name} must be a number, not {values[name]!r}; start with torchrun or srun")
    rank, local_rank, world_size = (int(values[name]) for name in names)
    if rank >= world_size:
        raise ConfigError(f"{names[0]} is {rank}, but {names[2]} says there are {world_size} processes")
    return Placement(launcher, rank, local_rank, world_size, values["MASTER_ADDR"], int(values["MASTER_PORT"]))


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
    if placement.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {placement.local_rank} of this machine has no CUDA device of its own; "
            f"there are {torch.cuda.device_count()}"
        )
    return torch.device("cuda", placement.local_rank)


@contextlib.contextmanager
def process_group(placement: Placement, device: torch.device, timeout: float = 1800.0) -> Iterator[None]:
    """The default process group, of one process too, so that there is one way through the code: nccl on CUDA, gloo
    elsewhere.

    Args:
        placement: of this process.
        device: of this process.
        timeout: seconds that a collective waits for a rank.
    """
    if placement.launcher == "plain":
        store: dist.Store = dist.HashStore()
    else:
        agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        server = dist.TCPStore(
            placement.address,
            placement.port,
            None,
            is_master=placement.rank == 0 and not agent_serves,
            timeout=_MEETING_TIMEOUT,
        )
        # A restarted attempt must not find the keys of the one before.
        store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", server)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=store,
        rank=placement.rank,
        world_size=placement.world_size,
        timeout=datetime.timedelta(seconds=timeout),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def on_rank_0(function: Callable[[], Value]) -> Value:
    """What a function gives on rank 0, on every rank; it is called on rank 0 alone. All ranks must call this.

    Raises:
        SglocError: on every rank, if the function raised it.
    """
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = function()
        except SglocError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        outcome[1].told = dist.get_rank() != 0
        raise outcome[1]
    return outcome[0]  # type: ignore[no-any-return]


def on_each_rank(function: Callable[[], Value]) -> Value:
    """What a function gives on this rank; where it raises on some rank, all ranks raise. All ranks must call this.

    Raises:
        SglocError: on every rank, what the function raised on the first rank where it did.
    """
    value, error = None, None
    try:
        value = function()
    except SglocError as raised:
        error = raised
    errors: list[SglocError | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, error)
    failed = [rank for rank, raised in enumerate(errors) if raised is not None]
    if failed:
        first = errors[failed[0]]
        assert first is not None
        first.told = dist.get_rank() != failed[0]
        raise first
    return value  # type: ignore[return-value]


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether a collective failed because another process has ended."""
    return any(phrase in str(error) for phrase in ("Connection closed by peer", "Connection reset by peer"))


def is_timeout(error: RuntimeError) -> bool:
    """Whether a collective failed because another process did not take part in time."""
    return any(phrase in str(error) for phrase in ("Timed out waiting", "timed out", "Timeout"))


def gather_to_rank_0(value: Value) -> list[Value]:
    """Every rank's value on rank 0, in order of rank; an empty list elsewhere. All ranks must call it."""
    gathered: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, gathered)
    return gathered or []


def sum_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """Sums over the ranks, in float64, of one number after the other. All ranks must call it."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()


def max_over_ranks(value: float, device: torch.device) -> float:
    """The largest of the ranks' numbers. All ranks must call it."""
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return float(tensor)
