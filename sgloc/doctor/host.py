"""What the ranks' machines give them: shared memory, limits, cores, the time."""

import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sgloc.doctor.examination import Examination
from sgloc.doctor.finding import Finding

_SHARED_MEMORY = "/dev/shm"
_INFINIBAND = Path("/sys/class/infiniband")
_MIB = 2**20
# Less than this, and even a lock between processes has no room.
_FULL = 1 * _MIB
# What nccl may take for a process and its peers on the machine.
_NCCL_BYTES = 64 * _MIB
# Connections of a full mesh, shards, and whatever libraries open.
_FILES_ANYHOW, _FILES_A_RANK = 256, 4
_MOST_SKEW = 1.0


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
    """This rank's machine. All ranks must call it together."""
    torch.distributed.barrier()
    now = time.time()
    shared_bytes = shared_free_bytes = None
    if Path(_SHARED_MEMORY).is_dir():
        status = os.statvfs(_SHARED_MEMORY)
        shared_bytes, shared_free_bytes = (status.f_frsize * blocks for blocks in (status.f_blocks, status.f_bavail))
    return Host(
        shared_bytes=shared_bytes,
        shared_free_bytes=shared_free_bytes,
        open_files=_limit(resource.RLIMIT_NOFILE),
        locked_bytes=_limit(resource.RLIMIT_MEMLOCK),
        has_infiniband=_INFINIBAND.is_dir() and any(_INFINIBAND.iterdir()),
        cores=frozenset(os.sched_getaffinity(0)),
        num_threads=torch.get_num_threads(),
        time=now,
    )


def _limit(which: int) -> float:
    soft, _ = resource.getrlimit(which)
    return float("inf") if soft == resource.RLIM_INFINITY else soft


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
        return Finding("limits", "problem", found, "`ulimit -l unlimited`, or LimitMEMLOCK=infinity of slurmd")
    return Finding("limits", "ok", found)


def _judge_cores(facts: Mapping[int, Host], ranks: Examination, *, uses_nccl: bool) -> Finding:
    for host, here in ranks.on_each_host().items():
        of_host = [facts[rank] for rank in here if rank in facts]
        cores = frozenset[int]().union(*(one.cores for one in of_host))
        num_threads = sum(one.num_threads for one in of_host)
        found = f"{num_threads} threads of {len(of_host)} processes on {len(cores)} cores of {host}"
        advice = f"export OMP_NUM_THREADS={max(1, len(cores) // max(1, len(of_host)))}"
        if len(of_host) > len(cores):
            return Finding("cores", "warning", found, "start fewer processes, or ask for more --cpus-per-task")
        if num_threads > len(cores) or any(one.num_threads > len(one.cores) for one in of_host):
            return Finding("cores", "warning", f"{found}: they wait for each other", advice)
        if not uses_nccl and 2 * num_threads <= len(cores):
            return Finding("cores", "warning", f"{found}: most cores stay idle", advice)
    return Finding("cores", "ok", found)


def _judge_clocks(facts: Mapping[int, Host], ranks: Examination) -> Finding:
    times = {rank: host.time for rank, host in facts.items()}
    first, last = min(times, key=lambda rank: times[rank]), max(times, key=lambda rank: times[rank])
    skew = times[last] - times[first]
    found = f"within {skew:.3f} s of each other"
    if skew > _MOST_SKEW:
        found = f"{ranks.names([last])} is {skew:.1f} s ahead of {ranks.names([first])}"
    advice = "logs and file times will mislead; see chrony or ntpd there"
    return Finding.judged("clocks", skew <= _MOST_SKEW, "warning", found, advice, {"skew_seconds": skew})
