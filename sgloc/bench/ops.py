"""Benchmark of the grid operators and of batch preparation."""

import dataclasses
from collections.abc import Callable

import torch

from sgloc import ops
from sgloc.bench.batches import describe, first_batch, preparation
from sgloc.bench.options import OpsOptions
from sgloc.bench.report import Report
from sgloc.bench.timing import Clock
from sgloc.models.sketchgloc.config import Config

# Scale of the disturbance if the configuration sets none: the smaller one of the paper's reorganization.
_DISTURB_SCALE = 0.1


def measure(options: OpsOptions, config: Config, report: Report) -> None:
    """Measure the operators one by one, and the whole preparation of a batch.

    The operators are node boxes, adjacency and aggregation (forward and backward); the preparation is augmentation,
    disturbance, boxes and adjacency.
    """
    device = report.device
    packed, manifest = first_batch(options, config)
    prepare = preparation(config, manifest)
    prepare = dataclasses.replace(prepare, disturb=prepare.disturb or _DISTURB_SCALE)
    sketches = prepare(packed, device)
    node_offsets, sketch_offsets = sketches.node_offsets, sketches.sketch_node_offsets
    boxes = ops.node_boxes(sketches.points, node_offsets)
    adjacency = ops.grid_adjacency(boxes, sketch_offsets)
    dtype = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32
    width = 2 * config.model.encoder.hidden_size
    embeddings = torch.ones(len(boxes), width, dtype=dtype, device=device, requires_grad=True)
    sums = ops.grid_aggregate(adjacency, embeddings, sketch_offsets)
    gradient = torch.ones_like(sums)

    def prepare_all() -> object:
        ready = prepare(packed, device)
        return ops.node_adjacency(ready.points, ready.node_offsets, ready.sketch_node_offsets)

    measured: dict[str, Callable[[], object]] = {
        "boxes": lambda: ops.node_boxes(sketches.points, node_offsets),
        "adjacency": lambda: ops.grid_adjacency(boxes, sketch_offsets),
        "boxes and adjacency": lambda: ops.node_adjacency(sketches.points, node_offsets, sketch_offsets),
        "aggregate": lambda: ops.grid_aggregate(adjacency, embeddings, sketch_offsets),
        "aggregate backward": lambda: torch.autograd.grad(sums, embeddings, gradient, retain_graph=True),
        "preparation": prepare_all,
    }
    sizes = {"width": width, "dtype": str(dtype).removeprefix("torch."), "disturb": prepare.disturb}
    report.settings = {**describe(packed, options), **sizes}
    clock = Clock(device)
    for name, function in measured.items():
        function()
        seconds = [clock.time(function) for _ in range(options.repeats)]
        num_points = packed.num_points if name == "preparation" else len(sketches.points)
        report.add(name, seconds, len(packed), num_points)
