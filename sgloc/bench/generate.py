"""Benchmark of drawing from latent codes."""

from functools import partial

import numpy as np
import torch

from sgloc import random
from sgloc.bench.batches import describe, first_batch
from sgloc.bench.drawn import LONGEST_POINTS
from sgloc.bench.flops import drawing_flops
from sgloc.bench.options import GenerateOptions
from sgloc.bench.report import Report
from sgloc.bench.timing import Ceiling, Clock, executed_flops
from sgloc.inference.sampling import draw
from sgloc.models.sketchgloc.config import Config
from sgloc.models.sketchgloc.decoder import Decoder
from sgloc.models.sketchgloc.recipe import RECIPE
from sgloc.nn.rows import NUM_PEN_STATES, PEN_DOWN, PEN_END

# Larger than any contribution of the weights to a pen logit.
_CERTAIN = 1e6


def measure(options: GenerateOptions, config: Config, report: Report) -> None:
    """Measure drawing from random latent codes with an untrained model.

    Greedy drawing never ends by itself, so that it takes all steps. Sampled drawings end at random, with the average
    length of real ones.
    """
    packed, manifest = first_batch(options, config)
    num_sketches, device = options.batch, report.device
    model = RECIPE.build_model(config, manifest).to(device).eval()
    keys = random.fold(config.train.seed, torch.arange(num_sketches)).to(device)
    codes = random.normal(keys[:, None], torch.arange(config.model.latent_size, device=device))
    mean_points = min(packed.num_points / num_sketches, LONGEST_POINTS - 1.0)
    cell = f"{config.model.decoder.cell} {config.model.decoder.hidden_size}"
    report.settings = {**describe(packed, options), "steps": LONGEST_POINTS, "cell": cell}
    ceiling = Ceiling(Clock(device), torch.float32, options.ceiling_size)
    for name, end_probability, temperature in (
        ("greedy, all steps forced", 0.0, 0.0),
        ("sampled, real lengths", end_probability_for(mean_points), 1.0),
    ):
        _set_pen(model.decoder, end_probability)
        work = partial(draw, model.decoder, codes, keys, max_points=LONGEST_POINTS, temperature=temperature)
        # The first call is untimed: it warms up, and its operations are counted.
        drawings, executed = executed_flops(work)
        ((seconds, ceilings),) = ceiling.between([partial(ceiling.clock.time, work)], options.repeats)
        lengths = [len(drawing) for drawing in drawings]
        # A drawing that ends before the last step has one more row, its end row.
        num_rows = sum(min(length + 1, LONGEST_POINTS) for length in lengths)
        flops = drawing_flops(config.model, num_sketches, num_rows)
        extra = {"mean_points": sum(lengths) / num_sketches, "longest_points": max(lengths)}
        points = sum(lengths)
        report.add(
            name, seconds, num_sketches, points, flops=flops, executed_flops=executed, ceilings=ceilings, extra=extra
        )
    report.facts.append(ceiling.record)


def end_probability_for(mean_points: float) -> float:
    """Return the probability of ending at each step that gives drawings `mean_points` points on average.

    Args:
        mean_points: above 0 and below `LONGEST_POINTS`, the length at which every drawing is cut off.
    """
    ends = np.geomspace(1e-6, 1, 10**5)
    goes_on = 1 - ends
    # The sum of goes_on^t over t = 1 .. LONGEST_POINTS; goes_on^t is the probability that a drawing has a t-th point.
    means = goes_on * (1 - goes_on**LONGEST_POINTS) / ends
    return float(np.interp(-mean_points, -means, ends))


@torch.no_grad()
def _set_pen(decoder: Decoder, end_probability: float) -> None:
    """Make the pen end with this probability at every step and stay down otherwise, whatever the hidden state."""
    layer = decoder.output
    layer.weight[:NUM_PEN_STATES] = 0
    layer.bias[:NUM_PEN_STATES] = -_CERTAIN
    layer.bias[PEN_DOWN] = torch.log(torch.tensor(1 - end_probability))
    if end_probability > 0:
        layer.bias[PEN_END] = torch.log(torch.tensor(end_probability))
