"""The map of codes: each drawing placed at the first two principal components of its code."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from sgloc.inference.sketches import Polylines
from sgloc.templates import fill

_WIDTH, _HEIGHT, _MARGIN = 1080, 760, 40
# Side of a drawing on the map and minimum distance between two of them, in pixels.
_SIDE, _SPACING = 36, 40


@dataclass(frozen=True)
class Map:
    """Projection of codes to their first two principal components.

    Attributes:
        places: float64 [n, 2].
        shares: share of the codes' variance explained by each component.
    """

    places: npt.NDArray[np.float64]
    shares: tuple[float, float]


def principal_map(codes: npt.NDArray[np.float32]) -> Map:
    """Project codes [n, Z] to their first two principal components; components that do not exist are zero."""
    centered = codes.astype(np.float64) - codes.mean(0, dtype=np.float64)
    # Padding by two rows and columns guarantees at least two singular vectors.
    _, strengths, directions = np.linalg.svd(np.pad(centered, ((0, 2), (0, 2))), full_matrices=False)
    plane = directions[:2, : codes.shape[1]]
    # Fix each direction's sign by making its largest entry positive, so that the map does not flip between runs.
    plane *= np.sign(plane[(0, 1), np.abs(plane).argmax(1)])[:, None]
    total = max(float((strengths**2).sum()), np.finfo(np.float64).tiny)
    first, second = (strengths[:2] ** 2 / total).tolist()
    return Map(centered @ plane.T, (first, second))


def color_of(number: int, count: int) -> str:
    """Return the colour of category `number` out of `count`."""
    red, green, blue = colorsys.hls_to_rgb(number / max(count, 1), 0.42, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def draw_map(
    places: npt.NDArray[np.float64], sketches: Sequence[Polylines], labels: Sequence[int], names: Sequence[str]
) -> Markup:
    """Draw an SVG map that shows each sketch where there is room, and a dot otherwise.

    Args:
        places: [n, 2], in any unit.
        sketches: the n sketches.
        labels: the n category numbers.
        names: names of all categories.
    """
    low, high = places.min(0), places.max(0)
    extent = np.maximum(high - low, 1e-12)
    size = np.array((_WIDTH, _HEIGHT)) - 2 * _MARGIN
    pixels = (places - low) / extent * size + _MARGIN
    shown: list[int] = []
    dots, drawings = [], []
    for number, (pixel, sketch, label) in enumerate(zip(pixels, sketches, labels, strict=True)):
        color = color_of(label, len(names))
        is_free = all(np.abs(pixel - pixels[other]).max() >= _SPACING for other in shown)
        if is_free and sketch:
            shown.append(number)
            drawings.append((color, names[label], _small(sketch, pixel)))
        else:
            dots.append((f"{pixel[0]:.1f}", f"{pixel[1]:.1f}", color))
    return Markup(fill("report/map.svg", width=_WIDTH, height=_HEIGHT, dots=dots, drawings=drawings))


def _small(sketch: Polylines, center: npt.NDArray[np.float64]) -> list[str]:
    """Return the SVG points of each stroke of a sketch, scaled down and centred at `center`."""
    points = np.concatenate(sketch)
    low, high = points.min(0), points.max(0)
    unit = _SIDE / max(float((high - low).max()), 1e-12)
    strokes = [(stroke - (low + high) / 2) * unit + center for stroke in sketch]
    return [" ".join(f"{x:.1f},{y:.1f}" for x, y in stroke) for stroke in strokes]
