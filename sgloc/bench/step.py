"""Benchmark of a training step, executed by the engine that trains."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

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


def measure(options: StepOptions, config: Config, report: Report) -> None:
    """Measure training steps and their phases, on a batch and on the same batch plus one very long sketch."""
    packed, manifest = first_batch(options, config)
    prepare = preparation(config, manifest)
    # Its coordinates are in 0..255 like QuickDraw's, so the data set's scale applies to it too.
    long_sketch = draw_long_sketch(options.long_sketch, config.train.seed)
    batches = [prepare(drawings, report.device) for drawings in (packed, concatenate([packed, long_sketch]))]
    encoder, decoder = config.model.encoder, config.model.decoder
    report.settings = {
        **describe(packed, options),
        "precision": config.train.precision,
        "accumulation": config.train.accumulation,
        "checkpoint_decoder": config.train.checkpoint_decoder,
        "cells": f"{encoder.cell} {encoder.hidden_size}, {decoder.cell} {decoder.hidden_size}",
    }
    with opened_engine(config, manifest, report.device) as engine:
        _measure(report, engine, config, batches, options)


def take_step(engine: Engine, sketches: SketchBatch, learning_rate: float) -> None:
    """Take one training step."""
    engine.backward(sketches)
    engine.update(learning_rate)


@contextmanager
def _watched(model: Trainable, clock: Clock) -> Iterator[dict[str, Any]]:
    """Hook the model and its weights, and yield the marks at which the phases of the latest step ended.

    Everything after the gradient of the last weight counts as the optimizer phase: the end of the gradient reduction,
    clipping, and Adam.
    """
    ends: dict[str, Any] = {}

    def noting(phase: str) -> Callable[..., None]:
        def note(*_: object) -> None:
            ends[phase] = clock.mark()

        return note

    hooks = [model.register_forward_hook(noting("forward"))]
    hooks += [weight.register_post_accumulate_grad_hook(noting("backward")) for weight in model.parameters()]
    try:
        yield ends
    finally:
        for hook in hooks:
            hook.remove()


def _measure(report: Report, engine: Engine, config: Config, batches: list[SketchBatch], options: StepOptions) -> None:
    """Add a measurement of a step on each of the two batches, and of the phases of the first batch's step."""
    train, rate, clock = config.train, learning_rate(config.optimizer, 0), Clock(report.device)
    steps = [partial(take_step, engine, sketches, rate) for sketches in batches]
    peaks = []
    for step in steps:
        for _ in range(_WARM_UP_STEPS):
            step()
        # Read before the larger batch runs: the peak of a process never falls.
        peaks.append(peak_memory(report.device))
    dtype = torch.bfloat16 if train.precision == "bfloat16" else torch.float32
    ceiling = Ceiling(clock, dtype, options.ceiling_size)
    with _watched(engine.model, clock) as ends:

        def timed(step: Callable[[], None]) -> dict[str, float]:
            start = clock.mark()
            step()
            marks = [start, ends["forward"], ends["backward"], clock.mark()]
            seconds = map(clock.seconds, marks, marks[1:])
            return {"step": clock.seconds(start, marks[-1]), **dict(zip(PHASES, seconds, strict=True))}

        taken = ceiling.between([partial(timed, step) for step in steps], options.repeats)
    titles = ({name: name for name in ("step", *PHASES)}, {"step": "step with a long sketch"})
    for names, sketches, step, peak, (times, ceilings) in zip(titles, batches, steps, peaks, taken, strict=True):
        shapes = Shapes.of(sketches, config.model)
        needed = training_flops(config.model, shapes, train.accumulation, train.checkpoint_decoder)
        forward = sum(needed.forward.values())
        flops = {"step": needed.total, "forward": forward, "backward": needed.total - forward}
        executed = {"step": executed_flops(step)[1]}
        for name, title in names.items():
            report.add(
                title,
                [time[name] for time in times],
                len(sketches),
                len(sketches.points),
                flops=flops.get(name),
                executed_flops=executed.get(name),
                ceilings=ceilings,
                peak_memory_mib=peak,
            )
        if sketches is batches[0]:
            report.facts.append({"name": "flops", **dataclasses.asdict(needed)})
    plain, longer = ([time["step"] for time in times] for times, _ in taken)
    ratios = [after / before for before, after in zip(plain, longer, strict=True)]
    report.facts += [{"name": "long sketch ratio", "points": options.long_sketch, **spread(ratios)}, ceiling.record]
