"""What the ranks compute on, how fast, and whether they share it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import torch

from sgloc import dist
from sgloc.doctor.examination import Examination, outliers
from sgloc.doctor.finding import Finding
from sgloc.nn.product import product
from sgloc.tf32 import float32_products
from sgloc.train.record import processor

_PRODUCT_SIZES = {"cuda": 8192, "cpu": 1024}
_NUM_PRODUCT_ROUNDS = 5
# Of the median rank's rate: global batches wait for the slowest.
_SLOW_SHARE = 0.75
_LEAST_FREE_SHARE = 0.8


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
    """This rank's; takes some tenths of a second."""
    is_cuda = device.type == "cuda"
    # Before anything of ours is there.
    num_free_bytes, num_bytes = torch.cuda.mem_get_info(device) if is_cuda else (0, 0)
    return Device(
        kind=processor(device),
        identity=str(torch.cuda.get_device_properties(device).uuid) if is_cuda else "",
        num_visible=torch.cuda.device_count() if is_cuda else 0,
        num_bytes=num_bytes,
        num_free_bytes=num_free_bytes,
        flops=_product_rate(device),
    )


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
    return [*_judge_kinds(facts, ranks), *_judge_sharing(facts, ranks), _judge_speed(facts, ranks)]


def _judge_kinds(facts: Mapping[int, Device], ranks: Examination) -> list[Finding]:
    common, odd = outliers({rank: (device.kind, device.num_bytes) for rank, device in facts.items()})
    if odd:
        found = f"{ranks.names(odd)} has {next(iter(odd.values()))[0]}, others have {common[0]}"
        return [Finding("devices", "warning", found, "the slowest rank sets the pace; ask for nodes of one kind")]
    first = facts[0]
    memory = f" of {first.num_bytes / 2**30:.0f} GiB" if first.num_bytes else ""
    seen = f"; {first.num_visible} visible to each" if first.num_visible else ""
    backend = dist.backend(torch.device("cuda" if first.identity else "cpu"))
    return [Finding("devices", "ok", f"{len(facts)} x {common[0]}{memory}{seen}; backend {backend}")]


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
        device = facts[used[0]]
        free, whole = device.num_free_bytes / 2**30, device.num_bytes / 2**30
        found = f"{ranks.names(used)}: {free:.1f} of {whole:.1f} GiB of the GPU's memory are free"
        findings.append(Finding("devices", "warning", found, "somebody else uses it; see nvidia-smi"))
    return findings


def _judge_speed(facts: Mapping[int, Device], ranks: Examination) -> Finding:
    rates = {rank: device.flops for rank, device in facts.items()}
    middle, slowest = median(rates.values()), min(rates, key=lambda rank: rates[rank])
    numbers = {"median_flops_per_second": middle, "slowest_flops_per_second": rates[slowest]}
    found = f"{middle / 1e9:,.0f} GFLOP/s float32 products a rank"
    slow = [rank for rank, rate in rates.items() if rate < _SLOW_SHARE * middle]
    if not slow:
        return Finding("speed", "ok", f"{found}; slowest {rates[slowest] / 1e9:,.0f}", numbers=numbers)
    found += f", but {rates[slowest] / 1e9:,.0f} on {ranks.names(sorted(slow, key=lambda rank: rates[rank]))}"
    advice = "see what else runs there, its clock and its temperature, or leave the node out"
    return Finding("speed", "warning", found, advice, numbers)
