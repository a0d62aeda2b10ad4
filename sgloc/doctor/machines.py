"""Checks of the machines: program versions, devices, and resources for each process."""

import functools
import importlib.metadata
import math
import os
import re
import resource
import shutil
import time
import timeit
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from sgloc import dist
from sgloc.doctor.examination import Examination, by_value, merged
from sgloc.doctor.finding import Finding
from sgloc.nn.product import product
from sgloc.tf32 import float32_products
from sgloc.train.record import processor, versions

_OPTIONAL = ("deepspeed", "triton")
_NONE = "none"
_PRODUCT_SIZES = {"cuda": 8192, "cpu": 1024}
# Share of the median rank's speed below which to warn: every global batch waits for the slowest rank.
_SLOW_SHARE = 0.75
_LEAST_FREE_SHARE = 0.8
_SHARED_MEMORY = "/dev/shm"
_INFINIBAND = Path("/sys/class/infiniband")
_MIB, _GIB = 2**20, 2**30
# With less shared memory than this, not even a lock between processes fits.
_FULL = 1 * _MIB
# Shared memory that nccl may need per process on the machine.
_NCCL_BYTES = 64 * _MIB
# Open files: a base for shards and libraries, and connections to each rank of a full mesh.
_FILES_ANYHOW, _FILES_A_RANK = 256, 4
_MOST_SKEW = 1.0


def check_programs(examination: Examination) -> None:
    """Check that all ranks run the same versions and that torch fits the driver. Collective: all ranks must call it."""
    advice = "repair the environment on that machine"
    examination.check("versions", _versions, advice, judge_versions)
    examination.check("CUDA", lambda: judge_cuda(torch.version.cuda, _driver(), _cuda_error()), advice, merged)


def _versions() -> dict[str, str]:
    """Return the version of each program; "none" if it is not installed."""
    found = {**versions(), "cuda": torch.version.cuda or _NONE, "nccl": _NONE}
    if torch.version.cuda and torch.distributed.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    for name in _OPTIONAL:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = _NONE
    return found


def judge_versions(facts: Mapping[int, Mapping[str, str]], ranks: Examination) -> Iterator[Finding]:
    """Check that all ranks run the same versions."""
    advice = "start all ranks in the same environment; training refuses to start with different versions"
    is_same = True
    for name in facts[0]:
        for sentence in ranks.differences({rank: f"{name} {found.get(name, _NONE)}" for rank, found in facts.items()}):
            is_same = False
            yield Finding("versions", "problem", sentence, advice)
    if is_same:
        listed = ", ".join(f"{name} {version:.12}" for name, version in facts[0].items())
        yield Finding("versions", "ok", f"{listed}; the same on all ranks")


def _driver() -> str | None:
    """Return the version of the NVIDIA driver; None if there is no driver."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module\D*([\d.]+)", text)
    return found[1] if found else "of unknown version"


def _cuda_error() -> str | None:
    """Return why a CUDA build of torch cannot use CUDA; None if it can, or if torch is a CPU build."""
    try:
        if torch.version.cuda is not None and not torch.cuda.is_available():
            torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def judge_cuda(cuda: str | None, driver: str | None, error: str | None) -> Finding:
    """Check that torch fits a rank's driver.

    Args:
        cuda: CUDA version that torch is built for; None for a CPU build.
        driver: version of the NVIDIA driver; None if there is no driver.
        error: why torch cannot use CUDA, if it is a CUDA build.
    """
    if driver is not None and cuda is None:
        found = f"NVIDIA driver {driver}, but torch is built for the CPU only"
        return Finding("CUDA", "problem", found, "install a CUDA build of torch (see pytorch.org)")
    if error is not None and driver is not None:
        advice = f"update the driver, which is {driver}, or install torch for an older CUDA version"
        return Finding("CUDA", "problem", f"torch for CUDA {cuda}: {error}", advice)
    if error is not None:
        advice = "no NVIDIA driver found: start on a node with GPUs"
        return Finding("CUDA", "warning", f"torch for CUDA {cuda}: {error}", advice)
    plain = "no NVIDIA driver, and torch is built for the CPU"
    return Finding("CUDA", "ok", plain if driver is None else f"torch for CUDA {cuda}, driver {driver}")


@dataclass(frozen=True)
class Device:
    """A rank's device.

    Attributes:
        kind: name of the processor or GPU.
        flops: speed of float32 matrix products, in FLOP/s.
        identity: UUID of the GPU, the same for ranks that share it; empty for a CPU.
        num_visible: number of GPUs visible to the rank.
        num_bytes, num_free_bytes: total and free GPU memory in bytes.
    """

    kind: str
    flops: float
    identity: str = ""
    num_visible: int = 0
    num_bytes: int = 0
    num_free_bytes: int = 0

    def __str__(self) -> str:
        return self.kind + (f" of {self.num_bytes / _GIB:.0f} GiB" if self.num_bytes else "")


def check_devices(examination: Examination, wanted: str, placement: dist.Placement) -> torch.device | None:
    """Check the devices, which takes a few tenths of a second. Collective: all ranks must call it.

    Args:
        examination: the examination of all ranks.
        wanted: "auto", "cpu" or "cuda".
        placement: placement of this rank.

    Returns:
        This rank's device; None if there is a problem with any device.
    """

    def look() -> Device:
        device = dist.select_device(wanted, placement)
        dist.use_device(device)
        if device.type != "cuda":
            return Device(processor(device), _product_rate(device))
        # Measure free memory before allocating anything.
        free, size = torch.cuda.mem_get_info(device)
        identity = str(torch.cuda.get_device_properties(device).uuid)
        return Device(processor(device), _product_rate(device), identity, torch.cuda.device_count(), size, free)

    advice = "check nvidia-smi, CUDA_VISIBLE_DEVICES, and the number of GPUs requested"
    facts = examination.check("devices", look, advice, judge_devices)
    return dist.select_device(wanted, placement) if facts else None


def _product_rate(device: torch.device) -> float:
    """Measure FLOP/s of float32 matrix products, with the faster of torch.mm and the model's own product."""
    size = _PRODUCT_SIZES[device.type]
    factor, output = torch.full((size, size), 0.5, device=device), torch.empty(size, size, device=device)
    # Reading a number waits for the device.
    statement = "multiply(factor, factor, out=output); output[0, 0].item()"
    seconds = []
    with float32_products(device):
        for multiply in (torch.mm, product):
            # torch's own timer warns of a CUDA toolkit without a GPU.
            names = {"multiply": multiply, "factor": factor, "output": output}
            number, total = timeit.Timer(statement, globals=names).autorange()
            seconds.append(total / number)
    return 2 * size**3 / min(seconds)


def judge_devices(facts: Mapping[int, Device], ranks: Examination) -> Iterator[Finding]:
    """Check that ranks have devices of the same kind and speed, and that no two share a GPU."""
    is_mixed = len({bool(device.identity) for device in facts.values()}) > 1
    differences = ranks.differences({rank: str(device) for rank, device in facts.items()})
    for sentence in differences:
        if is_mixed:
            advice = "start all ranks on nodes with GPUs, or all of them with device cpu"
            yield Finding("devices", "problem", sentence, advice)
        else:
            yield Finding("devices", "warning", sentence, "the slowest rank sets the pace; request identical nodes")
    if not differences:
        seen = f"; {facts[0].num_visible} visible to each" if facts[0].num_visible else ""
        backend = dist.backend(torch.device("cuda" if facts[0].identity else "cpu"))
        yield Finding("devices", "ok", f"{len(facts)} x {facts[0]}{seen}; backend {backend}")
    users = by_value({rank: device.identity for rank, device in facts.items() if device.identity})
    shared = {identity: who for identity, who in users.items() if len(who) > 1}
    for identity, who in shared.items():
        advice = "start one process per GPU: set --nproc-per-node or --ntasks-per-node, or use --gpus-per-task=1"
        yield Finding("devices", "problem", f"{ranks.names(who)} share one GPU, {identity}", advice)
    used = [rank for rank, device in facts.items() if device.num_free_bytes < _LEAST_FREE_SHARE * device.num_bytes]
    if used and not shared:
        free, whole = facts[used[0]].num_free_bytes / _GIB, facts[used[0]].num_bytes / _GIB
        found = f"{ranks.names(used)}: {free:.1f} of {whole:.1f} GiB of GPU memory free"
        yield Finding("devices", "warning", found, "another process is using the GPU; see nvidia-smi")
    yield _judge_speed(facts, ranks)


def _judge_speed(facts: Mapping[int, Device], ranks: Examination) -> Finding:
    by_rate = sorted(facts, key=lambda rank: facts[rank].flops)
    middle, slowest = median(device.flops for device in facts.values()), facts[by_rate[0]].flops
    numbers = {"median_flops_per_second": middle, "slowest_flops_per_second": slowest}
    found = f"{middle / 1e9:,.0f} GFLOP/s per rank in float32 matrix products"
    slow = [rank for rank in by_rate if facts[rank].flops < _SLOW_SHARE * middle]
    found += f", but {slowest / 1e9:,.0f} on {ranks.names(slow)}" if slow else f"; slowest {slowest / 1e9:,.0f}"
    advice = "check other processes, clock rate and temperature of that node, or exclude it"
    return Finding.judged("speed", not slow, "warning", found, advice, numbers)


@dataclass(frozen=True)
class Process:
    """A rank's process on its machine.

    Attributes:
        cores: the cores it may run on.
        num_threads: number of torch compute threads.
        time: seconds since the epoch, read by all ranks at the same moment.
    """

    cores: frozenset[int]
    num_threads: int
    time: float


def check_hosts(examination: Examination, *, uses_nccl: bool) -> None:
    """Check shared memory, process limits, cores and clocks. Collective: all ranks must call it."""
    num_here = len(examination.on_each_host()[examination.hosts[examination.rank]])

    def look_at_shared_memory() -> Finding:
        if not Path(_SHARED_MEMORY).is_dir():
            return Finding("shared memory", "ok", f"no {_SHARED_MEMORY}")
        size, _, free = shutil.disk_usage(_SHARED_MEMORY)
        return judge_shared_memory(size, free, num_here, uses_nccl=uses_nccl)

    def look_at_limits() -> Finding:
        limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK)]
        open_files, locked_bytes = (math.inf if limit == resource.RLIM_INFINITY else limit for limit in limits)
        has_infiniband = _INFINIBAND.is_dir() and any(_INFINIBAND.iterdir())
        return judge_limits(open_files, locked_bytes if has_infiniband else math.inf, len(examination.hosts))

    def look_at_process() -> Process:
        torch.distributed.barrier()
        now = time.time()
        return Process(frozenset(os.sched_getaffinity(0)), torch.get_num_threads(), now)

    advice = "check what is mounted there"
    examination.check("shared memory", look_at_shared_memory, advice, merged)
    examination.check("limits", look_at_limits, advice, merged)
    examination.check("cores", look_at_process, advice, functools.partial(judge_processes, uses_nccl=uses_nccl))


def judge_shared_memory(size: int, free: int, num_ranks: int, *, uses_nccl: bool) -> Finding:
    """Check that a machine's shared memory has room for its ranks.

    Args:
        size: total size in bytes.
        free: free bytes.
        num_ranks: number of ranks on the machine.
        uses_nccl: whether the ranks exchange gradients through it.
    """
    needed = num_ranks * _NCCL_BYTES
    has_room = free >= (needed if uses_nccl and num_ranks > 1 else _FULL)
    found = f"{free / _MIB:,.0f} of {size / _MIB:,.0f} MiB of {_SHARED_MEMORY} free"
    advice = f"remove leftover files there, or start the container with --shm-size: at least {needed / _MIB:,.0f} MiB"
    return Finding.judged("shared memory", has_room, "problem", found, advice, {"free_bytes": free})


def judge_limits(open_files: float, locked_bytes: float, num_ranks: int) -> Finding:
    """Check a rank's limits of open files and locked memory.

    Args:
        open_files: limit of open files.
        locked_bytes: limit of locked memory; infinite if there is no InfiniBand, which alone needs it.
        num_ranks: number of ranks in the run.
    """
    needed, found = _FILES_ANYHOW + _FILES_A_RANK * num_ranks, f"{open_files:,.0f} open files"
    if open_files < needed:
        advice = f"`ulimit -n {needed}` or more before starting; a run needs about {_FILES_A_RANK} per rank"
        return Finding("limits", "problem", found, advice)
    if locked_bytes < math.inf:
        found = f"InfiniBand, but only {locked_bytes / 1024:,.0f} KiB of memory may be locked"
        return Finding("limits", "problem", found, "`ulimit -l unlimited`, or LimitMEMLOCK=infinity for slurmd")
    return Finding("limits", "ok", found)


def judge_processes(facts: Mapping[int, Process], ranks: Examination, *, uses_nccl: bool) -> list[Finding]:
    """Check that no machine has more threads than cores, and that all clocks agree."""
    return [_judge_cores(facts, ranks, uses_nccl=uses_nccl), _judge_clocks(facts, ranks)]


def _judge_cores(facts: Mapping[int, Process], ranks: Examination, *, uses_nccl: bool) -> Finding:
    for host, here in ranks.on_each_host().items():
        of_host = [facts[rank] for rank in here]
        cores = frozenset[int]().union(*(one.cores for one in of_host))
        num_threads = sum(one.num_threads for one in of_host)
        found = f"{num_threads} threads of {len(of_host)} processes on {len(cores)} cores of {host}"
        advice = f"export OMP_NUM_THREADS={max(1, len(cores) // len(of_host))}"
        if len(of_host) > len(cores):
            return Finding("cores", "warning", found, "start fewer processes, or request more --cpus-per-task")
        if num_threads > len(cores) or any(one.num_threads > len(one.cores) for one in of_host):
            return Finding("cores", "warning", f"{found}: they compete for cores", advice)
        if not uses_nccl and 2 * num_threads <= len(cores):
            return Finding("cores", "warning", f"{found}: most cores stay idle", advice)
    return Finding("cores", "ok", found)


def _judge_clocks(facts: Mapping[int, Process], ranks: Examination) -> Finding:
    by_time = sorted(facts, key=lambda rank: facts[rank].time)
    first, last = by_time[0], by_time[-1]
    skew = facts[last].time - facts[first].time
    found = f"within {skew:.3f} s of each other"
    if skew > _MOST_SKEW:
        found = f"{ranks.names([last])} is {skew:.1f} s ahead of {ranks.names([first])}"
    advice = "times in logs and files will be misleading; check chrony or ntpd there"
    return Finding.judged("clocks", skew <= _MOST_SKEW, "warning", found, advice, {"skew_seconds": skew})
