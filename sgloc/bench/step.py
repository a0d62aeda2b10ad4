"""What a training step costs, taken by the engine that trains."""

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import torch

from sgloc import dist
from sgloc.bench.drawn import concatenate, draw_long_sketch
from sgloc.bench.flops import STAGES, Flops, Shapes, training_flops
from sgloc.bench.options import BenchOptions, describe, first_batch, preparation
from sgloc.bench.report import Report
from sgloc.bench.timing import Ceiling, Clock, Spread, executed_flops
from sgloc.config import Config
from sgloc.memory import peak_memory
from sgloc.models.sketchgloc.recipe import build_model
from sgloc.sketch.ragged import SketchBatch
from sgloc.train.engine import Engine, open_engine
from sgloc.train.recipe import Trainable
from sgloc.train.schedule import learning_rate

PHASES = ("forward", "backward", "optimizer")
_WARM_UP_STEPS = 2


def bench_step(options: BenchOptions, config: Config) -> Report:
    """Measure whole training steps and their phases, on a batch and on the same batch with one very long sketch.

    Args:
        options: what to measure on.
        config: of the run whose step it is.

    Raises:
        SglocError: if the shards or the device cannot be used.
    """
    packed, scale = first_batch(options, config)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, global_batch=len(packed)))
    prepare = preparation(config, scale)
    batch = prepare(packed, options.device)
    # Drawn in 0..255 like all of QuickDraw, so the data set's scale fits it.
    longer = prepare(concatenate(packed, draw_long_sketch(options.long_sketch, config.train.seed)), options.device)
    num_longest = int(batch.sketch_point_offsets.diff().max())
    settings = {
        **describe(packed, options),
        "precision": config.train.precision,
        "accumulation": config.train.accumulation,
        "checkpoint_decoder": config.train.checkpoint_decoder,
        "cells": f"{config.model.encoder.cell} {config.model.encoder.hidden_size}, "
        f"{config.model.decoder.cell} {config.model.decoder.hidden_size}",
    }
    report = Report("step", settings, options.device)
    placement = dist.resolve_placement({})
    with dist.process_group(placement, options.device):
        model = build_model(config, num_longest).to(options.device)
        with closing(open_engine(model, config, options.device, placement.world_size)) as engine:
            _measure(report, engine, config, [("step", batch), ("step with a long sketch", longer)], options)
    return report


def take_step(engine: Engine, sketches: SketchBatch, learning_rate: float) -> None:
    """A whole training step."""
    engine.backward(sketches)
    engine.update(learning_rate)


class _Stopwatch:
    """Tells when forward and backward pass of a step are over, from hooks on the model and its weights.

    What follows the last weight's gradient counts as the optimizer's: the end of the gradients' reduction, clipping and
    Adam.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.forward_end = self.backward_end = clock.mark()

    def _on_forward(self, *_: object) -> None:
        self.forward_end = self.clock.mark()

    def _on_gradient(self, *_: object) -> None:
        self.backward_end = self.clock.mark()

    @contextmanager
    def watching(self, model: Trainable) -> Iterator[None]:
        """Inside, steps of this model are timed."""
        hooks = [
            model.register_forward_hook(self._on_forward),
            *(parameter.register_post_accumulate_grad_hook(self._on_gradient) for parameter in model.parameters()),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def time(self, engine: Engine, sketches: SketchBatch, rate: float) -> dict[str, float]:
        """Take a step; seconds of the whole and of its phases."""
        start = self.clock.mark()
        take_step(engine, sketches, rate)
        end = self.clock.mark()
        marks = (start, self.forward_end, self.backward_end, end)
        phases = zip(PHASES, marks[:-1], marks[1:], strict=True)
        return {"step": self.clock.seconds(start, end)} | {
            name: self.clock.seconds(before, after) for name, before, after in phases
        }


def _measure(
    report: Report, engine: Engine, config: Config, batches: list[tuple[str, SketchBatch]], options: BenchOptions
) -> None:
    rate, clock = learning_rate(config.optimizer, 0), Clock(options.device)
    peaks = []
    for _, sketches in batches:
        for _ in range(_WARM_UP_STEPS):
            take_step(engine, sketches, rate)
        # Read here, before the larger batch: a process's peak never falls.
        peaks.append(peak_memory(options.device))
    dtype = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32
    ceiling, stopwatch = Ceiling(clock, dtype, options.ceiling_size), _Stopwatch(clock)
    seconds: list[list[dict[str, float]]] = [[] for _ in batches]
    ceilings: list[list[float]] = [[] for _ in batches]
    ceiling.measure()
    with stopwatch.watching(engine.model):
        for _, number in itertools.product(range(options.num_repeats), range(len(batches))):
            seconds[number].append(stopwatch.time(engine, batches[number][1], rate))
            ceiling.measure()
            ceilings[number].append(ceiling.around())
    for times, rates, (name, sketches), peak in zip(seconds, ceilings, batches, peaks, strict=True):
        flops = training_flops(
            config.model, Shapes.of(sketches, config.model), config.train.accumulation, config.train.checkpoint_decoder
        )
        _, executed = executed_flops(partial(take_step, engine, sketches, rate))
        more: dict[str, Any] = {"ceilings": rates, "peak_memory_mib": peak}
        sizes = (len(sketches), len(sketches.points))
        whole = [time["step"] for time in times]
        report.add(name, whole, *sizes, flops=flops.total, executed_flops=executed, **more)
        if sketches is batches[0][1]:
            for phase, needed in zip(PHASES, _flops_of_phases(flops), strict=True):
                report.add(phase, [time[phase] for time in times], *sizes, flops=needed, **more)
            report.facts.append(_stages(flops))
    report.facts.append(_ratio(seconds, options.long_sketch))
    report.add_ceiling(ceiling)


def _flops_of_phases(flops: Flops) -> tuple[int, int, None]:
    forward = sum(flops.forward.values())
    return forward, flops.total - forward, None


def _stages(flops: Flops) -> dict[str, object]:
    """Operations by stage, for the report."""
    passes = dataclasses.asdict(flops).items()
    return {"name": "flops"} | {name: {stage: stages[stage] for stage in STAGES} for name, stages in passes}


def _ratio(seconds: list[list[dict[str, float]]], num_points: int) -> dict[str, object]:
    """How many times longer the step with the long sketch took than the one before it."""
    plain, longer = ([time["step"] for time in times] for times in seconds)
    ratios = [after / before for before, after in zip(plain, longer, strict=True)]
    return {"name": "long sketch ratio", "points": num_points, **dataclasses.asdict(Spread.of(ratios))}
