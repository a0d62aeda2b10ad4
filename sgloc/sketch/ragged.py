"""A ragged batch of sketches: flat points with offsets for nodes and sketches, without padding."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch.transform import split_nodes


@dataclass(frozen=True)
class SketchBatch:
    """B sketches of S nodes and P points.

    Attributes:
        points: float32 [P, 2], absolute normalised (x, y), the encoder's input, disturbed or not.
        targets: float32 [P, 2], the same points undisturbed, the decoder's targets.
        pen_lift: bool [P], True on each stroke's last point.
        node_offsets: int64 [S+1], where each node's points begin.
        sketch_node_offsets: int64 [B+1], where each sketch's nodes begin.
        sketch_point_offsets: int64 [B+1], where each sketch's points begin.
        random_key: int64 [B], the keys from which all random numbers of a sketch derive (`sgloc.random`).
    """

    points: Tensor
    targets: Tensor
    pen_lift: Tensor
    node_offsets: Tensor
    sketch_node_offsets: Tensor
    sketch_point_offsets: Tensor
    random_key: Tensor

    @classmethod
    def of_strokes(
        cls,
        points: Tensor,
        targets: Tensor,
        stroke_lengths: Tensor,
        sketch_stroke_offsets: Tensor,
        max_node_points: int | None,
        random_key: Tensor,
    ) -> "SketchBatch":
        """Build a batch from points, cutting strokes into nodes (METHOD 2).

        Args:
            points, targets: float [P, 2], as in the class attributes.
            stroke_lengths: int64 [strokes], number of points in each stroke, at least 1.
            sketch_stroke_offsets: int64 [B+1], where each sketch's strokes begin.
            max_node_points: largest number of points in a node; None makes each stroke one node.
            random_key: int64 [B].
        """
        stroke_offsets = offsets_from_lengths(stroke_lengths)
        pen_lift = torch.zeros(len(targets), dtype=torch.bool, device=targets.device)
        pen_lift[stroke_offsets[1:] - 1] = True
        node_offsets, sketch_node_offsets = split_nodes(stroke_lengths, sketch_stroke_offsets, max_node_points)
        return cls(
            points=points,
            targets=targets,
            pen_lift=pen_lift,
            node_offsets=node_offsets,
            sketch_node_offsets=sketch_node_offsets,
            sketch_point_offsets=stroke_offsets[sketch_stroke_offsets],
            random_key=random_key,
        )

    def __len__(self) -> int:
        return len(self.random_key)

    def part(self, start: int, stop: int) -> "SketchBatch":
        """Return sketches start to stop, as views where possible."""
        first_node, last_node = int(self.sketch_node_offsets[start]), int(self.sketch_node_offsets[stop])
        first_point, last_point = int(self.sketch_point_offsets[start]), int(self.sketch_point_offsets[stop])
        return SketchBatch(
            points=self.points[first_point:last_point],
            targets=self.targets[first_point:last_point],
            pen_lift=self.pen_lift[first_point:last_point],
            node_offsets=self.node_offsets[first_node : last_node + 1] - first_point,
            sketch_node_offsets=self.sketch_node_offsets[start : stop + 1] - first_node,
            sketch_point_offsets=self.sketch_point_offsets[start : stop + 1] - first_point,
            random_key=self.random_key[start:stop],
        )

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | None = None) -> "SketchBatch":
        """Move the batch to a device, or convert its coordinates to another floating dtype."""
        moved = {entry.name: getattr(self, entry.name).to(device=device) for entry in fields(self)}
        return SketchBatch(
            **{**moved, "points": moved["points"].to(dtype=dtype), "targets": moved["targets"].to(dtype=dtype)}
        )


def smallest_batch() -> SketchBatch:
    """Return a batch of one sketch: one stroke with two points."""
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    one, two = torch.tensor([0, 1]), torch.tensor([0, 2])
    return SketchBatch(points, points, torch.tensor([False, True]), two, one, two, torch.tensor([0]))
