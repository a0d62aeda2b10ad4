"""Checks of the network between ranks: all-reduce latency and bandwidth, and slow links."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
import torch.distributed

from sgloc import dist
from sgloc.doctor.examination import Examination
from sgloc.doctor.finding import Finding

# Small all-reduces per series, and number of series.
_NUM_SMALL, _NUM_ROWS = 20, 3
# Target duration of a series of large all-reduces in seconds, and the maximum number per series.
_LARGE_SECONDS, _MOST_LARGE = 0.5, 10
_LINK_BYTES, _NUM_LINK_REPEATS = 16 * 2**20, 3
# Acceptable for a train step: highest latency in seconds, lowest bus bandwidth in bytes per second.
_MOST_LATENCY = {"nccl": 1e-3, "gloo": 1e-2}
_LEAST_BANDWIDTH = {"nccl": 5e9, "gloo": 1e8}
_SLOW_LINK = 3.0
_ADVICE = {
    "nccl": "run with NCCL_DEBUG=INFO to see what fails, and whether InfiniBand, NVLink or only sockets are used",
    "gloo": "check which interface it uses (GLOO_SOCKET_IFNAME), and what else the machines are running",
}


@dataclass(frozen=True)
class Network:
    """One rank's measurements.

    Attributes:
        latency: seconds per all-reduce of four float64 values, in the best series.
        seconds: seconds per all-reduce of a whole gradient, in the best series.
        link_seconds: seconds to receive 16 MiB from the previous rank, while all ranks send.
        is_right: whether the sums were correct.
    """

    latency: float
    seconds: float
    link_seconds: float
    is_right: bool


def check_network(examination: Examination, device: torch.device, num_elements: int) -> None:
    """Measure all-reduces between all ranks. Collective: all ranks must call it.

    Args:
        examination: the examination of all ranks.
        device: device of this process.
        num_elements: number of elements of a gradient.
    """
    if len(examination.hosts) == 1:
        found = "only one process, nothing to measure; start the doctor the way you will start the run"
        examination.findings.append(Finding("all-reduce", "ok", found))
        return
    look = functools.partial(_measure, device, num_elements)
    judge = functools.partial(judge_network, num_elements=num_elements, backend=dist.backend(device))
    examination.check("all-reduce", look, _ADVICE[dist.backend(device)], judge)


def _measure(device: torch.device, num_elements: int) -> Network:
    """Measure all-reduces of a gradient of `num_elements`. Collective: all ranks must call it."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    group = torch.distributed.new_group(backend="nccl") if device.type == "cuda" else None

    def timed(function: Callable[[], object], number: int) -> float:
        torch.distributed.barrier()
        start = time.perf_counter()
        for _ in range(number):
            function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / number

    def reduce(values: torch.Tensor, number: int) -> float:
        return timed(lambda: torch.distributed.all_reduce(values, group=group), number)

    def pass_on() -> None:
        to_next = torch.distributed.P2POp(torch.distributed.isend, sent, (rank + 1) % world_size, group)
        from_last = torch.distributed.P2POp(torch.distributed.irecv, received, (rank - 1) % world_size, group)
        for work in torch.distributed.batch_isend_irecv([to_next, from_last]):
            work.wait()

    small = torch.zeros(4, dtype=torch.float64, device=device)
    # Warm up: the first all-reduce sets up connections.
    reduce(small, 1)
    latency = min(reduce(small, _NUM_SMALL) for _ in range(_NUM_ROWS))
    large = torch.full((num_elements,), float(rank + 1), device=device)
    reduce(large, 1)
    is_right = bool((large == world_size * (world_size + 1) / 2).all())
    large.zero_()
    # All ranks must do the same number of repetitions.
    first = dist.Group().max(reduce(large, 1))
    number = max(1, min(_MOST_LARGE, int(_LARGE_SECONDS / first)))
    seconds = min(reduce(large, number) for _ in range(_NUM_ROWS))
    sent, received = torch.empty(2, _LINK_BYTES, dtype=torch.uint8, device=device)
    link_seconds = min(timed(pass_on, 1) for _ in range(_NUM_LINK_REPEATS))
    return Network(latency, seconds, link_seconds, is_right)


def bus_bandwidth(num_bytes: int, seconds: float, world_size: int) -> tuple[float, float]:
    """Compute the bandwidths of an all-reduce in bytes per second, as nccl-tests define them.

    Returns:
        The algorithm bandwidth, size over time; and the bus bandwidth, which is that times 2 (N - 1) / N and can be
        compared with the nominal speed of the links.
    """
    algorithm = num_bytes / seconds
    return algorithm, algorithm * 2 * (world_size - 1) / world_size


def judge_network(facts: Mapping[int, Network], ranks: Examination, num_elements: int, backend: str) -> list[Finding]:
    """Check that all-reduces are correct, and fast enough not to dominate a train step."""
    wrong = [rank for rank, network in facts.items() if not network.is_right]
    if wrong:
        found = f"wrong sums on {ranks.names(wrong)}"
        return [Finding("all-reduce", "problem", found, "a link or GPU is broken; exclude that node")]
    latency, seconds = (max(getattr(one, name) for one in facts.values()) for name in ("latency", "seconds"))
    algorithm, bus = bus_bandwidth(4 * num_elements, seconds, len(facts))
    numbers = {"latency_seconds": latency, "seconds": seconds, "algorithm_bandwidth": algorithm, "bus_bandwidth": bus}
    found = (
        f"{backend}, {len(facts)} ranks: 32 bytes in {1e6 * latency:,.0f} microseconds, "
        f"{4e-6 * num_elements:,.0f} MB in {1e3 * seconds:,.1f} ms, "
        f"algorithm bandwidth {algorithm / 1e9:.2f} GB/s, bus bandwidth {bus / 1e9:.2f} GB/s"
    )
    is_fast = latency <= _MOST_LATENCY[backend] and bus >= _LEAST_BANDWIDTH[backend]
    reduced = Finding.judged("all-reduce", is_fast, "warning", found, _ADVICE[backend], numbers)
    return [reduced, _judge_links(facts, ranks)]


def _judge_links(facts: Mapping[int, Network], ranks: Examination) -> Finding:
    times = {rank: network.link_seconds for rank, network in facts.items()}
    slowest, middle = max(times, key=lambda rank: times[rank]), median(times.values())
    rate = _LINK_BYTES / times[slowest] / 1e9
    if times[slowest] <= _SLOW_LINK * middle:
        return Finding("links", "ok", f"all neighbours exchange 16 MiB at {rate:.2f} GB/s or more")
    link = f"from {ranks.names([(slowest - 1) % len(facts)])} to {ranks.names([slowest])}"
    found = f"{rate:.2f} GB/s {link}, {times[slowest] / middle:.1f} times slower than most"
    return Finding("links", "warning", found, "exclude that node, or have its link checked")
