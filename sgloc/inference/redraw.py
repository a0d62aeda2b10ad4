"""Redrawing sketches with a trained network (METHOD 3 and 9)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgloc.inference.network import Network
from sgloc.inference.rows import ROWS, ROWS_OF_REORGANIZATION
from sgloc.inference.sampling import draw
from sgloc.inference.sketches import Polylines, polylines_of_rows, strokes_of
from sgloc.inference.stroke_matching import placed
from sgloc.sketch.ragged import SketchBatch


@dataclass(frozen=True)
class Drawn:
    """A sketch and its redrawing; each stroke is float64 [n, 2] of absolute (x, y) in the source's units.

    Attributes:
        original: the clean sketch.
        disturbed: the network's input: the sketch with its strokes moved, or equal to the original.
        redrawn: the network's drawing; may have no stroke.
    """

    original: Polylines
    disturbed: Polylines
    redrawn: Polylines

    @property
    def put_back(self) -> Polylines:
        """The disturbed strokes, each moved rigidly to its place in the redrawing."""
        return placed(self.disturbed, self.redrawn)


@torch.no_grad()
def redraw(
    network: Network,
    sketches: SketchBatch,
    scale: float,
    y: Tensor | None = None,
    *,
    max_points: int,
    temperature: float = 0.0,
) -> list[Drawn]:
    """Redraw a batch of sketches.

    Args:
        network: the network, in evaluation mode, on the device of the sketches.
        sketches: the batch.
        scale: scale of the data set (METHOD 1).
        y: codes of the sketches, [B, Z]; None computes them.
        max_points: maximum number of points of a drawing.
        temperature: sampling temperature (METHOD 9); 0 is greedy.
    """
    y = network.encode(sketches).y if y is None else y
    rows = draw(network, y, sketches.random_key, max_points=max_points, temperature=temperature)
    originals, disturbed = (strokes_of(sketches, points, scale) for points in (sketches.targets, sketches.points))
    redrawn = [polylines_of_rows(one, scale) for one in rows]
    return [Drawn(*each) for each in zip(originals, disturbed, redrawn, strict=True)]


def gallery_rows(
    drawn: Sequence[Drawn], disturb: float, rows: Sequence[str] = ROWS
) -> list[tuple[str, list[Polylines]]]:
    """Return row labels and drawings for `sgloc.sketch.render.draw_gallery`.

    Args:
        drawn: the sketches and their redrawings.
        disturb: r of METHOD 3; at 0, rows that would repeat the original are omitted.
        rows: the rows to show, a subset of `ROWS`.
    """
    shown = [row for row in rows if disturb > 0 or row not in ROWS_OF_REORGANIZATION]
    return [(row.replace("_", " "), [getattr(one, row) for one in drawn]) for row in shown]
