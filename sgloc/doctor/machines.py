"""What the ranks run on: programs, devices, and what the machines give them."""

import importlib.metadata
import os
import re
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from sgloc import dist
from sgloc.doctor.examination import Examination, outliers
from sgloc.doctor.finding import Finding
from sgloc.nn.product import product
from sgloc.tf32 import float32_products
from sgloc.train.record import processor, versions

_OPTIONAL = ("deepspeed", "triton")
_NONE = "none"
_PRODUCT_SIZES = {"cuda": 8192, "cpu": 1024}
_NUM_PRODUCT_ROUNDS = 5
# Of the median rank's rate: global batches wait for the slowest.
_SLOW_SHARE = 0.75
_LEAST_FREE_SHARE = 0.8
_SHARED_MEMORY = "/dev/shm"
_INFINIBAND = Path("/sys/class/infiniband")
_MIB, _GIB = 2**20, 2**30
# With less than this, there is no room even for a lock between processes.
_FULL = 1 * _MIB
# What nccl may take for a process and its peers on the machine.
_NCCL_BYTES = 64 * _MIB
# Connections of a full mesh, shards, and whatever libraries open.
_FILES_ANYHOW, _FILES_A_RANK = 256, 4
_MOST_SKEW = 1.0


@dataclass(frozen=True)
class Programs:
    """What a rank runs.

    Attributes:
        versions: of each program; "none" where it is not installed.
        driver: version of the NVIDIA driver; None where there is none.
        cuda_error: why torch, built for CUDA, cannot use it; None if it can, or is not.
    """

    versions: Mapping[str, str]
    driver: str | None
    cuda_error: str | None


def look_at_programs() -> Programs:
    """The programs of this rank."""
    found = {**versions(), "cuda": torch.version.cuda or _NONE, "nccl": _NONE}
    if torch.version.cuda and torch.distributed.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    for name in _OPTIONAL:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = _NONE
    return Programs(found, _driver(), _cuda_error())


def _driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module\D*([\d.]+)", text)
    return found[1] if found else "of unknown version"


def _cuda_error() -> str | None:
    try:
        if torch.version.cuda is not None and not torch.cuda.is_available():
            torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def judge_programs(facts: Mapping[int, Programs], ranks: Examination) -> list[Finding]:
    """All ranks are to run the same, and torch is to fit the driver."""
    found, first = [], facts[0].versions
    for name in first:
        common, odd = outliers({rank: programs.versions.get(name, _NONE) for rank, programs in facts.items()})
        found += [f"{ranks.names([rank])} has {name} {odd[rank]}, others have {common}" for rank in odd]
    advice = "start all ranks in the same environment; training refuses to start like this"
    findings = [Finding("versions", "problem", one, advice) for one in found]
    if not findings:
        listed = ", ".join(f"{name} {version:.12}" for name, version in first.items())
        findings = [Finding("versions", "ok", f"{listed}; the same on all ranks")]
    return [*findings, _judge_cuda(facts, ranks)]


def _judge_cuda(facts: Mapping[int, Programs], ranks: Examination) -> Finding:
    cpu_builds = [rank for rank, one in facts.items() if one.driver is not None and one.versions["cuda"] == _NONE]
    broken = [rank for rank, one in facts.items() if one.cuda_error is not None]
    first = facts[(cpu_builds or broken or [0])[0]]
    cuda = f"torch for CUDA {first.versions['cuda']}"
    if cpu_builds:
        found = f"{ranks.names(cpu_builds)}: NVIDIA driver {first.driver}, but torch is built for the CPU alone"
        return Finding("CUDA", "problem", found, "install a CUDA build of torch (see pytorch.org)")
    if broken:
        found = f"{ranks.names(broken)}: {cuda}: {first.cuda_error}"
        if first.driver is None:
            return Finding("CUDA", "warning", found, "no NVIDIA driver here: start on a node with GPUs")
        advice = f"the driver is {first.driver}: update it, or install torch for an older CUDA"
        return Finding("CUDA", "problem", found, advice)
    if first.driver is None:
        return Finding("CUDA", "ok", "no NVIDIA driver, and torch is built for the CPU")
    return Finding("CUDA", "ok", f"{cuda}, driver {first.driver}")


@dataclass(frozen=True)
class Device:
    """A rank's device.

    Attributes:
        kind: processor or GPU, by name.
        identity: the same for two ranks that share a GPU; empty for processors.
        num_visible: GPUs that the rank could choose from.
        num_bytes, num_free_bytes: of a GPU's memory.
        flops: of float32 matrix products, a second.
    """

    kind: str
    identity: str
    num_visible: int
    num_bytes: int
    num_free_bytes: int
    flops: float


def look_at_device(device: torch.device) -> Device:
    """The device of this rank; takes some tenths of a second."""
    if device.type != "cuda":
        return Device(processor(device), "", 0, 0, 0, _product_rate(device))
    # Before anything of ours is there.
    num_free_bytes, num_bytes = torch.cuda.mem_get_info(device)
    identity = str(torch.cuda.get_device_properties(device).uuid)
    kind, num_visible = processor(device), torch.cuda.device_count()
    return Device(kind, identity, num_visible, num_bytes, num_free_bytes, _product_rate(device))


def _product_rate(device: torch.device) -> float:
    """FLOP/s of float32 products, by the faster of torch's own and the model's way to multiply."""
    size = _PRODUCT_SIZES[device.type]
    factor, output = torch.full((size, size), 0.5, device=device), torch.empty(size, size, device=device)
    seconds = []
    with float32_products(device):
        # The first product sets up the library.
        for _ in range(1 + _NUM_PRODUCT_ROUNDS):
            for multiply in (torch.mm, product):
                start = time.perf_counter()
                multiply(factor, factor, out=output)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def judge_devices(facts: Mapping[int, Device], ranks: Examination) -> list[Finding]:
    """Ranks are to have devices of the same kind, GPUs of their own, and to be equally fast."""
    return [_judge_kinds(facts, ranks), *_judge_sharing(facts, ranks), _judge_speed(facts, ranks)]


def _judge_kinds(facts: Mapping[int, Device], ranks: Examination) -> Finding:
    common, odd = outliers({rank: (device.kind, device.num_bytes) for rank, device in facts.items()})
    if odd:
        found = f"{ranks.names(odd)} has {next(iter(odd.values()))[0]}, others have {common[0]}"
        return Finding("devices", "warning", found, "the slowest rank sets the pace; ask for nodes of one kind")
    memory = f" of {facts[0].num_bytes / _GIB:.0f} GiB" if facts[0].num_bytes else ""
    seen = f"; {facts[0].num_visible} visible to each" if facts[0].num_visible else ""
    backend = dist.backend(torch.device("cuda" if facts[0].identity else "cpu"))
    return Finding("devices", "ok", f"{len(facts)} x {common[0]}{memory}{seen}; backend {backend}")


def _judge_sharing(facts: Mapping[int, Device], ranks: Examination) -> list[Finding]:
    shared: dict[str, list[int]] = {}
    for rank, device in facts.items():
        if device.identity:
            shared.setdefault(device.identity, []).append(rank)
    advice = "start one process a GPU: --nproc-per-node or --ntasks-per-node as many as GPUs, or --gpus-per-task=1"
    findings = [
        Finding("devices", "problem", f"{ranks.names(who)} share one GPU, {identity}", advice)
        for identity, who in shared.items()
        if len(who) > 1
    ]
    used = [rank for rank, device in facts.items() if device.num_free_bytes < _LEAST_FREE_SHARE * device.num_bytes]
    if used and not findings:
        free, whole = facts[used[0]].num_free_bytes / _GIB, facts[used[0]].num_bytes / _GIB
        found = f"{ranks.names(used)}: {free:.1f} of {whole:.1f} GiB of the GPU's memory are free"
        return [Finding("devices", "warning", found, "somebody else uses it; see nvidia-smi")]
    return findings


def _judge_speed(facts: Mapping[int, Device], ranks: Examination) -> Finding:
    by_rate = sorted(facts, key=lambda rank: facts[rank].flops)
    middle, slowest = median(device.flops for device in facts.values()), facts[by_rate[0]].flops
    numbers = {"median_flops_per_second": middle, "slowest_flops_per_second": slowest}
    found = f"{middle / 1e9:,.0f} GFLOP/s float32 products a rank"
    slow = [rank for rank in by_rate if facts[rank].flops < _SLOW_SHARE * middle]
    found += f", but {slowest / 1e9:,.0f} on {ranks.names(slow)}" if slow else f"; slowest {slowest / 1e9:,.0f}"
    advice = "see what else runs there, its clock and its temperature, or leave the node out"
    return Finding.judged("speed", not slow, "warning", found, advice, numbers)


@dataclass(frozen=True)
class Host:
    """What a rank sees of its machine.

    Attributes:
        shared_bytes, shared_free_bytes: of /dev/shm; None where there is none.
        open_files: that the process may have.
        locked_bytes: of memory that it may lock.
        has_infiniband: whether the machine has such an adapter.
        cores: that the process may run on.
        num_threads: that torch computes with.
        time: seconds since the epoch, taken by all ranks at the same moment.
    """

    shared_bytes: int | None
    shared_free_bytes: int | None
    open_files: float
    locked_bytes: float
    has_infiniband: bool
    cores: frozenset[int]
    num_threads: int
    time: float


def look_at_host() -> Host:
    """The machine of this rank. All ranks must call it together."""
    torch.distributed.barrier()
    now = time.time()
    shared_bytes = shared_free_bytes = None
    if Path(_SHARED_MEMORY).is_dir():
        status = os.statvfs(_SHARED_MEMORY)
        shared_bytes, shared_free_bytes = (status.f_frsize * blocks for blocks in (status.f_blocks, status.f_bavail))
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK)]
    open_files, locked_bytes = (float("inf") if limit == resource.RLIM_INFINITY else limit for limit in limits)
    has_infiniband = _INFINIBAND.is_dir() and any(_INFINIBAND.iterdir())
    cores, num_threads = frozenset(os.sched_getaffinity(0)), torch.get_num_threads()
    return Host(shared_bytes, shared_free_bytes, open_files, locked_bytes, has_infiniband, cores, num_threads, now)


def judge_hosts(facts: Mapping[int, Host], ranks: Examination, *, uses_nccl: bool) -> list[Finding]:
    """Every machine is to have room, and no more threads than cores."""
    return [
        _judge_shared_memory(facts, ranks, uses_nccl=uses_nccl),
        _judge_limits(facts, ranks),
        _judge_cores(facts, ranks, uses_nccl=uses_nccl),
        _judge_clocks(facts, ranks),
    ]


def _judge_shared_memory(facts: Mapping[int, Host], ranks: Examination, *, uses_nccl: bool) -> Finding:
    here = {rank: host for rank, host in facts.items() if host.shared_free_bytes is not None}
    if not here:
        return Finding("shared memory", "ok", f"no {_SHARED_MEMORY}")
    tight = min(here, key=lambda rank: here[rank].shared_free_bytes or 0)
    free, size = here[tight].shared_free_bytes or 0, here[tight].shared_bytes or 0
    num_ranks = len(ranks.on_each_host()[ranks.hosts[tight]])
    needed = num_ranks * _NCCL_BYTES
    has_room = free >= _FULL and (not uses_nccl or num_ranks == 1 or free >= needed)
    found = f"{free / _MIB:,.0f} of {size / _MIB:,.0f} MiB of {_SHARED_MEMORY} free on {ranks.hosts[tight]}"
    advice = f"remove what others left there, or start the container with --shm-size: {needed / _MIB:,.0f} MiB or more"
    return Finding.judged("shared memory", has_room, "problem", found, advice, {"free_bytes": free})


def _judge_limits(facts: Mapping[int, Host], ranks: Examination) -> Finding:
    least = min(facts, key=lambda rank: facts[rank].open_files)
    limit, needed = facts[least].open_files, _FILES_ANYHOW + _FILES_A_RANK * len(facts)
    found = f"{limit:,.0f} open files"
    if limit < needed:
        advice = f"`ulimit -n {needed}` or more before the start; some {_FILES_A_RANK} are needed a rank"
        return Finding("limits", "problem", f"{found} on {ranks.names([least])}", advice)
    locked = [rank for rank, host in facts.items() if host.has_infiniband and host.locked_bytes != float("inf")]
    if locked:
        kibibytes = facts[locked[0]].locked_bytes / 1024
        found = f"InfiniBand, but only {kibibytes:,.0f} KiB of memory may be locked on {ranks.names(locked)}"
    advice = "`ulimit -l unlimited`, or LimitMEMLOCK=infinity of slurmd"
    return Finding.judged("limits", not locked, "problem", found, advice)


def _judge_cores(facts: Mapping[int, Host], ranks: Examination, *, uses_nccl: bool) -> Finding:
    for host, here in ranks.on_each_host().items():
        of_host = [facts[rank] for rank in here]
        cores = frozenset[int]().union(*(one.cores for one in of_host))
        num_threads = sum(one.num_threads for one in of_host)
        found = f"{num_threads} threads of {len(of_host)} processes on {len(cores)} cores of {host}"
        advice = f"export OMP_NUM_THREADS={max(1, len(cores) // len(of_host))}"
        if len(of_host) > len(cores):
            return Finding("cores", "warning", found, "start fewer processes, or ask for more --cpus-per-task")
        if num_threads > len(cores) or any(one.num_threads > len(one.cores) for one in of_host):
            return Finding("cores", "warning", f"{found}: they wait for each other", advice)
        if not uses_nccl and 2 * num_threads <= len(cores):
            return Finding("cores", "warning", f"{found}: most cores stay idle", advice)
    return Finding("cores", "ok", found)


def _judge_clocks(facts: Mapping[int, Host], ranks: Examination) -> Finding:
    by_time = sorted(facts, key=lambda rank: facts[rank].time)
    first, last = by_time[0], by_time[-1]
    skew = facts[last].time - facts[first].time
    found = f"within {skew:.3f} s of each other"
    if skew > _MOST_SKEW:
        found = f"{ranks.names([last])} is {skew:.1f} s ahead of {ranks.names([first])}"
    advice = "logs and file times will mislead; see chrony or ntpd there"
    return Finding.judged("clocks", skew <= _MOST_SKEW, "warning", found, advice, {"skew_seconds": skew})
