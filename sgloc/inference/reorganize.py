"""Reorganization of a user's own drawing on any canvas."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sgloc.inference.pretrained import Pretrained
from sgloc.inference.sketches import Polylines, polylines_of_rows
from sgloc.inference.stroke_matching import placed
from sgloc.sketch.simplify import CANVAS_SIDE, simplify


def reorganize_strokes(
    pretrained: Pretrained, drawings: Sequence[Polylines], *, temperature: float = 0.0, seed: int = 0
) -> list[tuple[Polylines, Polylines]]:
    """Move the strokes of drawings to where they belong.

    The model was trained on simplified drawings on QuickDraw's canvas (METHOD 1). Each drawing is therefore scaled,
    simplified and moved to the model's origin; the result is mapped back to the drawing's own canvas.

    Args:
        pretrained: the model, trained on simplified QuickDraw drawings or similar ones.
        drawings: drawings on any canvas, each with at least one stroke, [n, 2] of absolute (x, y).
        temperature: sampling temperature (METHOD 9); 0 is greedy.
        seed: seed of the sampling.

    Returns:
        For each drawing, its own strokes, moved rigidly, and the decoder's drawing, which may have no stroke.
    """
    given: list[Polylines] = [[line.astype(np.float64) for line in simplify(drawing)] for drawing in drawings]
    starts_first = pretrained.origin == "first_point"
    origins = [strokes[0][0] if starts_first else np.zeros(2) for strokes in given]
    shown = [[line - origin for line in strokes] for strokes, origin in zip(given, origins, strict=True)]
    codes = pretrained.encode_polylines(shown)
    drawn = pretrained.draw_codes(codes, temperature=temperature, seed=seed)
    result = []
    for drawing, origin, rows in zip(drawings, origins, drawn, strict=True):
        corner, unit = _canvas(drawing)
        redrawn = [(line + origin) * unit + corner for line in polylines_of_rows(rows, pretrained.scale)]
        result.append((placed(drawing, redrawn), redrawn))
    return result


def _canvas(strokes: Polylines) -> tuple[npt.NDArray[np.float64], float]:
    """Return a drawing's top left corner, [2], and the size of a QuickDraw pixel in the drawing's units."""
    points = np.concatenate(strokes)
    corner: npt.NDArray[np.float64] = points.min(0)
    return corner, float((points.max(0) - corner).max()) / CANVAS_SIDE
