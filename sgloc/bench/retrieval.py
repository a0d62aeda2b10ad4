"""Benchmark of ranking latent codes (Ret of METHOD 10)."""

from functools import partial

import torch

from sgloc import random
from sgloc.bench.options import RetrievalOptions
from sgloc.bench.report import Report
from sgloc.bench.timing import Ceiling, Clock
from sgloc.evaluate.metrics.retrieval import product_type, retrieval_ranks
from sgloc.models.sketchgloc.config import Config

# Distance of the queries from their originals, relative to the spread of the codes. At this distance some queries, but
# not all, find their original at rank one.
_NOISE = 3.0


def measure(options: RetrievalOptions, config: Config, report: Report) -> None:
    """Measure the ranking of normally distributed queries in a gallery of equally many codes."""
    count, width, device = options.batch, config.model.latent_size, report.device
    keys = random.fold(config.train.seed, torch.arange(2 * count))[:, None].to(device)
    numbers = random.normal(keys, torch.arange(width, device=device))
    gallery, queries = numbers[:count], numbers[:count] + _NOISE * numbers[count:]
    rank = partial(retrieval_ranks, queries, torch.arange(count, device=device), gallery)
    report.settings = {"codes": count, "width": width, "threads": torch.get_num_threads(), "repeats": options.repeats}
    ceiling = Ceiling(Clock(device), product_type(device), options.ceiling_size)
    ((seconds, ceilings),) = ceiling.between([partial(ceiling.clock.time, rank)], options.repeats)
    ranks, flops = rank(), 2 * count * count * width
    top = {f"top_{at}": float((ranks < at).double().mean()) for at in (1, 10, 50)}
    report.add("ranks", seconds, count, 0, flops=flops, executed_flops=flops, ceilings=ceilings, extra=top)
    report.facts.append(ceiling.record)
