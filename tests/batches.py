"""Ragged batches for tests."""

import numpy as np
import torch

from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch.ragged import SketchBatch


def make_batch(strokes_of_sketches: list[list[int]], seed: int = 0, dtype: torch.dtype = torch.float64) -> SketchBatch:
    """Return a batch of sketches with these stroke lengths at random positions; inputs and targets differ."""
    generator = np.random.default_rng(seed)
    stroke_lengths = torch.tensor([length for strokes in strokes_of_sketches for length in strokes])
    node_offsets = offsets_from_lengths(stroke_lengths)
    sketch_node_offsets = offsets_from_lengths(torch.tensor([len(strokes) for strokes in strokes_of_sketches]))
    num_points = int(node_offsets[-1])
    pen_lift = torch.zeros(num_points, dtype=torch.bool)
    pen_lift[node_offsets[1:] - 1] = True
    return SketchBatch(
        points=torch.from_numpy(generator.normal(size=(num_points, 2))).to(dtype),
        targets=torch.from_numpy(generator.normal(size=(num_points, 2))).to(dtype),
        pen_lift=pen_lift,
        node_offsets=node_offsets,
        sketch_node_offsets=sketch_node_offsets,
        sketch_point_offsets=node_offsets[sketch_node_offsets],
        random_key=torch.from_numpy(generator.integers(-(2**62), 2**62, len(strokes_of_sketches))),
    )
