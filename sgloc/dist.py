"""Who this process is among others: one resolver for a plain start, torchrun and srun, and the few collectives that the
rest needs."""

import contextlib
import copy
import datetime
import os
import pickle
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

# When it is imported it takes the default group of then, if there is one, as a default of arguments, and keeps it, so
# that gloo's threads outlive it and may abort the process as it ends. torch.optim imports it at the first step.
import torch.distributed.nn

from sgloc.errors import ConfigError, OtherRankError, SglocError
from sgloc.faults import as_told, exit_code_of, leave_verdict
from sgloc.torch_versions import silent_gloo

# Until all processes of a run have met.
_MEETING_TIMEOUT = datetime.timedelta(minutes=30)
# Ports for processes that srun started, and how far apart those of a job's steps are.
_FIRST_PORT, _NUM_PORTS, _PORTS_BETWEEN_STEPS = 20000, 10000, 997
_SLURM_SECONDS = 60

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
        num_nodes: the number of machines, as far as the launcher tells it; else 1.
    """

    launcher: Literal["plain", "torchrun", "srun"]
    rank: int
    local_rank: int
    world_size: int
    address: str
    port: int
    num_nodes: int = 1


def resolve_placement(environment: Mapping[str, str]) -> Placement:
    """Read the place from the environment that a launcher set.

    Under srun MASTER_ADDR and MASTER_PORT may be missing: rank 0 is then met at the address that Slurm knows of the
    step's first node, at a port made of the numbers of job and step.

    Raises:
        ConfigError: if the environment is only half set, or holds what is not a number; it names the variable. Also if
            Slurm does not tell the first node's address.
    """
    if any(name in environment for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        launcher: Literal["torchrun", "srun"] = "torchrun"
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        num_nodes_names: tuple[str, ...] = ("GROUP_WORLD_SIZE",)
    elif "SLURM_STEP_ID" in environment and environment.get(_num_tasks_name(environment)) != "1":
        # Only srun sets a step; a batch script has the other variables too, and is one process.
        launcher, names = "srun", ("SLURM_PROCID", "SLURM_LOCALID", _num_tasks_name(environment))
        num_nodes_names = ("SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    else:
        return Placement("plain", 0, 0, 1, "localhost", 0)
    rank, local_rank, world_size = (_number(environment, name, launcher) for name in names)
    if rank >= world_size:
        raise ConfigError(f"{names[0]} is {rank}, but {names[2]} says there are {world_size} processes")
    counts = [_number(environment, name, launcher) for name in num_nodes_names if name in environment]
    if launcher == "srun" and not {"MASTER_ADDR", "MASTER_PORT"} & environment.keys():
        address, port = _slurm_meeting_point(environment)
    else:
        address = _value(environment, "MASTER_ADDR", launcher)
        port = _number(environment, "MASTER_PORT", launcher)
    return Placement(launcher, rank, local_rank, world_size, address, port, *counts[:1])


def _num_tasks_name(environment: Mapping[str, str]) -> str:
    """The variable with the number of processes: in an interactive step, the other is the job's, not the step's."""
    return "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"


def _value(environment: Mapping[str, str], name: str, launcher: str) -> str:
    if not environment.get(name):
        raise ConfigError(
            f"{name} is not set although this looks like a process of {launcher}; "
            "start with torchrun or srun, or unset the others"
        )
    return environment[name]


def _number(environment: Mapping[str, str], name: str, launcher: str) -> int:
    value = _value(environment, name, launcher)
    if not value.isdecimal():
        raise ConfigError(f"{name} must be a number, not {value!r}; start with torchrun or srun")
    return int(value)


def _slurm_meeting_point(environment: Mapping[str, str]) -> tuple[str, int]:
    """The address of a step's first node, and a port that no other step is likely to have.

    Raises:
        ConfigError: if Slurm does not tell the address.
    """
    nodes = _value(environment, "SLURM_STEP_NODELIST", "srun")
    job, step = (_number(environment, name, "srun") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    head = _scontrol(environment, "hostnames", nodes).split()[0]
    # The names of nodes need not resolve everywhere; what Slurm itself uses does.
    address = re.search(r"\bNodeAddr=(\S+)", _scontrol(environment, "node", head))
    if address is None:
        raise ConfigError(f"scontrol does not tell the address of node {head}; set MASTER_ADDR and MASTER_PORT")
    return address[1], _FIRST_PORT + (job + _PORTS_BETWEEN_STEPS * step) % _NUM_PORTS


def _scontrol(environment: Mapping[str, str], *words: str) -> str:
    """What `scontrol show` says, which is something."""
    command = ["scontrol", "show", *words]
    try:
        done = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, check=True, timeout=_SLURM_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = " ".join(str(getattr(error, "stderr", None) or error).split())
        raise ConfigError(
            f"`{' '.join(command)}`, which is to tell where rank 0 is met, fails ({said}); "
            "set MASTER_ADDR and MASTER_PORT"
        ) from error
    if not done.stdout.strip():
        raise ConfigError(f"`{' '.join(command)}` says nothing; set MASTER_ADDR and MASTER_PORT")
    return done.stdout


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
def process_group(placement: Placement, device: torch.device, timeout: float = 1800.0) -> Iterator[None]:
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
        yield
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


def on_rank_0(function: Callable[[], Value], group: Any = None) -> Value:
    """What a function gives on rank 0, on every rank; it is called on rank 0 alone. All ranks must call this.

    Args:
        function: what to call.
        group: the process group to use; None: the default one.

    Raises:
        SglocError: on every rank, if the function raised it.
        OtherRankError: on the other ranks, if it raised anything else; rank 0 raises that itself.
    """
    value, error = None, None
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        value, error = _attempt(function)
        if error is None:
            # In the collective itself, a value that cannot be pickled would leave the others waiting.
            _, error = _attempt(lambda: pickle.dumps(value))
        outcome = [None if error else value, _for_others(error, 0)]
    dist.broadcast_object_list(outcome, src=0, group=group)
    if error is not None:
        raise error
    if outcome[1] is not None:
        outcome[1].told = not isinstance(outcome[1], OtherRankError)
        raise outcome[1]
    return value if dist.get_rank() == 0 else outcome[0]  # type: ignore[return-value]


def on_each_rank(function: Callable[[], Value]) -> Value:
    """What a function gives on this rank; where it raises on some rank, all ranks raise. All ranks must call this.

    Raises:
        SglocError: on every rank, what the function raised on the first rank where it did.
        OtherRankError: on the other ranks, if it raised anything else there; that rank raises it itself.
    """
    value, error = _attempt(function)
    errors: list[SglocError | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, _for_others(error, dist.get_rank()))
    if error is not None and not isinstance(error, SglocError):
        raise error
    failed = [rank for rank, raised in enumerate(errors) if raised is not None]
    if failed:
        first = errors[failed[0]]
        assert first is not None
        if failed[0] == dist.get_rank():
            assert error is not None
            raise error
        first.told = not isinstance(first, OtherRankError)
        raise first
    return value  # type: ignore[return-value]


def _attempt(function: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
    """What a function gives, or what it raises. That another rank is lost is raised here: no rank is left to hear of
    it."""
    try:
        return function(), None
    except Exception as error:
        if isinstance(error, RuntimeError) and (is_lost_peer(error) or is_timeout(error)):
            raise
        return None, error


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


def _of_collective(error: RuntimeError) -> str:
    """What an error of a collective or the store says, in small letters; nothing for any other error."""
    said = str(error).lower()
    if not isinstance(error, dist.DistError) and not _GLOO.match(said):
        # gloo raises plain RuntimeErrors; so do CUDA and Triton, which time out, too.
        return ""
    return "" if "cuda error" in said or "cuda failure" in said else said


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether a collective failed because another process has ended: by gloo, nccl or the store."""
    said = _of_collective(error)
    if any(phrase in said for phrase in _LOST_PHRASES):
        return True
    return bool(said) and isinstance(error, dist.DistNetworkError) and not is_timeout(error)


def is_timeout(error: RuntimeError) -> bool:
    """Whether a collective failed because another process did not take part in time: by gloo, nccl or the store."""
    return any(phrase in _of_collective(error) for phrase in _TIMEOUT_PHRASES)


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
