"""What a training step costs, taken by the engine that trains."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from sgloc.bench.batches import describe, first_batch, opened_engine, preparation
from sgloc.bench.drawn import draw_long_sketch
from sgloc.bench.flops import Shapes, training_flops
from sgloc.bench.options import StepOptions
from sgloc.bench.report import Report
from sgloc.bench.timing import Ceiling, Clock, executed_flops, spread
from sgloc.data.batch import concatenate
from sgloc.memory import peak_memory
from sgloc.models.sketchgloc.config import Config
from sgloc.sketch.ragged import SketchBatch
from sgloc.train.engine import Engine
from sgloc.train.recipe import Trainable
from sgloc.train.schedule import learning_rate

PHASES = ("forward", "backward", "optimizer")
_WARM_UP_STEPS = 2


def measure(options: StepOptions, config: Config, device: torch.device) -> Report:
    """Measure whole training steps and their phases, on a batch and on the same batch with one very long sketch."""
    packed, manifest = first_batch(options, config)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, global_batch=len(packed)))
    prepare = preparation(config, manifest)
    # Drawn in 0..255 like all of QuickDraw, so the data set's scale fits it.
    long_sketch = draw_long_sketch(options.long_sketch, config.train.seed)
    batches = [prepare(packed, device), prepare(concatenate([packed, long_sketch]), device)]
    encoder, decoder = config.model.encoder, config.model.decoder
    settings = {
        **describe(packed, options),
        "precision": config.train.precision,
        "accumulation": config.train.accumulation,
        "checkpoint_decoder": config.train.checkpoint_decoder,
        "cells": f"{encoder.cell} {encoder.hidden_size}, {decoder.cell} {decoder.hidden_size}",
    }
    report = Report("step", settings, device)
    with opened_engine(config, manifest, device) as engine:
        _measure(report, engine, config, batches, options)
    return report


def take_step(engine: Engine, sketches: SketchBatch, learning_rate: float) -> None:
    """A whole training step."""
    engine.backward(sketches)
    engine.update(learning_rate)


class _Stopwatch:
    """Times the phases of a step by hooks on the model and its weights.

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
        hooks = [model.register_forward_hook(self._on_forward)]
        hooks += [weight.register_post_accumulate_grad_hook(self._on_gradient) for weight in model.parameters()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def time(self, engine: Engine, sketches: SketchBatch, rate: float) -> dict[str, float]:
        """Take a step; seconds of the whole and of its phases."""
        start = self.clock.mark()
        take_step(engine, sketches, rate)
        marks = (start, self.forward_end, self.backward_end, self.clock.mark())
        seconds = {name: self.clock.seconds(*marks[place : place + 2]) for place, name in enumerate(PHASES)}
        return {"step": self.clock.seconds(start, marks[-1]), **seconds}


def _measure(report: Report, engine: Engine, config: Config, batches: list[SketchBatch], options: StepOptions) -> None:
    """Add a measurement of a step on each of two batches, and of the phases of the first."""
    train, rate, clock = config.train, learning_rate(config.optimizer, 0), Clock(report.device)
    peaks = []
    for sketches in batches:
        for _ in range(_WARM_UP_STEPS):
            take_step(engine, sketches, rate)
        # Read here, before the larger batch: a process's peak never falls.
        peaks.append(peak_memory(report.device))
    dtype = torch.bfloat16 if train.precision == "bfloat16" else torch.float32
    ceiling, stopwatch = Ceiling(clock, dtype, options.ceiling_size), _Stopwatch(clock)
    with stopwatch.watching(engine.model):
        steps = [partial(stopwatch.time, engine, sketches, rate) for sketches in batches]
        taken = ceiling.between(steps, options.repeats)
    for number, (sketches, peak, (times, ceilings)) in enumerate(zip(batches, peaks, taken, strict=True)):
        needed = training_flops(
            config.model, Shapes.of(sketches, config.model), train.accumulation, train.checkpoint_decoder
        )
        forward = sum(needed.forward.values())
        flops = {"step": needed.total, "forward": forward, "backward": needed.total - forward, "optimizer": None}
        _, executed = executed_flops(partial(take_step, engine, sketches, rate))
        for name in ("step", *PHASES) if number == 0 else ("step",):
            report.add(
                name if number == 0 else "step with a long sketch",
                [time[name] for time in times],
                len(sketches),
                len(sketches.points),
                flops=flops[name],
                executed_flops=executed if name == "step" else None,
                ceilings=ceilings,
                peak_memory_mib=peak,
            )
        if number == 0:
            report.facts.append({"name": "flops", **dataclasses.asdict(needed)})
    plain, longer = ([time["step"] for time in times] for times, _ in taken)
    ratios = [after / before for before, after in zip(plain, longer, strict=True)]
    report.facts += [{"name": "long sketch ratio", "points": options.long_sketch, **spread(ratios)}, ceiling.record]
