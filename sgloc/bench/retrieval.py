"""What ranking codes costs (Ret of METHOD 10)."""

import torch

from sgloc import random
from sgloc.bench.options import BenchOptions
from sgloc.bench.report import Report
from sgloc.bench.timing import Ceiling, Clock
from sgloc.config import Config
from sgloc.evaluate.metrics.retrieval import product_type, retrieval_ranks

# How far queries are from their originals, as a share of the codes' spread, so that a part of them is found at once.
_NOISE = 3.0


def bench_retrieval(options: BenchOptions, config: Config) -> Report:
    """Measure the ranks of as many queries in a gallery of as many codes, normally distributed ones.

    Args:
        options: how many; no data is read.
        config: of the run whose codes are as wide.
    """
    count, width, device = options.num_sketches, config.model.latent_size, options.device
    keys = random.fold(config.train.seed, torch.arange(2 * count))[:, None].to(device)
    numbers = random.normal(keys, torch.arange(width, device=device))
    gallery, queries = numbers[:count], numbers[:count] + _NOISE * numbers[count:]
    own = torch.arange(count, device=device)
    settings = {"codes": count, "width": width, "threads": torch.get_num_threads(), "repeats": options.num_repeats}
    report, clock = Report("retrieval", settings, device), Clock(device)
    ceiling = Ceiling(clock, product_type(device), options.ceiling_size)
    ceiling.measure()
    seconds, ceilings = [], []
    for _ in range(options.num_repeats):
        seconds.append(clock.time(lambda: retrieval_ranks(queries, own, gallery)))
        ceiling.measure()
        ceilings.append(ceiling.around())
    ranks = retrieval_ranks(queries, own, gallery)
    extra = {f"top_{at}": float((ranks < at).double().mean()) for at in (1, 10, 50)}
    flops = 2 * count * count * width
    report.add("ranks", seconds, count, 0, flops=flops, executed_flops=flops, ceilings=ceilings, extra=extra)
    report.add_ceiling(ceiling)
    return report
