"""Centre lines of brush strokes: outlines of pens along known paths, and fills that no pen drew."""

from typing import Any

import numpy as np
import pytest

from sgloc.sketch.svg.brush import centre_lines
from tests.pens import farthest, outline_of

TIMES = np.linspace(0, 1, 200)
TURN = 2 * np.pi * TIMES
WAYS = {
    "straight": (100 * TIMES, 30 * TIMES),
    "arc": (50 * np.cos(3 * TIMES), 50 * np.sin(3 * TIMES)),
    "wave": (100 * TIMES, 20 * np.sin(8 * TIMES)),
    "loop": (60 * TIMES + 25 * np.sin(1.6 * TURN), 30 * np.cos(1.6 * TURN)),
    "eight": (40 * np.sin(TURN), 25 * np.sin(2 * TURN)),
    "closed circle": (40 * np.cos(TURN), 40 * np.sin(TURN)),
    "spiral": ((5 + 45 * TIMES) * np.cos(20 * TIMES), (5 + 45 * TIMES) * np.sin(20 * TIMES)),
    "zigzag": (100 * TIMES, 30 * np.abs(6 * TIMES % 2 - 1)),
    "scribble": (60 * TIMES + 10 * np.sin(60 * TIMES), 30 * np.cos(60 * TIMES)),
}
PRESSURES = {
    "even": np.ones(200),
    "tapered": np.sin(np.pi * TIMES.clip(0.03, 0.97)),
    "uneven": 1 + 0.5 * np.sin(25 * TIMES),
}


def length_of(line: Any) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


@pytest.mark.parametrize("width", [1, 3, 6])
@pytest.mark.parametrize("pressure", PRESSURES)
@pytest.mark.parametrize("name", WAYS)
def test_the_way_of_a_pen_is_found(name: str, pressure: str, width: int) -> None:
    way = np.stack(WAYS[name], axis=1)
    lines = centre_lines([outline_of(way, width * PRESSURES[pressure])])
    assert lines is not None
    (line,) = lines
    # The centre line may extend to the rim of the tip; everywhere else it follows the middle.
    assert farthest(line, way) < 0.55 * width
    assert farthest(way, line) < 0.35 * width
    assert length_of(line) == pytest.approx(length_of(way) + width / 2, rel=0.1, abs=width)
    # Same direction as the pen's.
    assert np.hypot(*(line[0] - way[0])) < width
    assert np.hypot(*(line[-1] - way[-1])) < width
    assert len(line) < 400


def test_where_and_how_large_does_not_matter() -> None:
    outline = outline_of(np.stack(WAYS["loop"], axis=1), np.full(200, 3.0))
    lines, moved = centre_lines([outline]), centre_lines([outline[:, ::-1] * 1e5 + 1e6])
    assert lines is not None
    assert moved is not None
    assert farthest((moved[0] - 1e6)[:, ::-1] / 1e5, lines[0]) < 0.1


def regular(num_points: int, radius: float = 50, inner_radius: float | None = None) -> Any:
    """Return a closed regular polygon, or a star."""
    angles = np.arange(num_points + 1) * 2 * np.pi / num_points
    radii = np.full(num_points + 1, radius)
    if inner_radius is not None:
        radii[1::2] = inner_radius
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def polygon(*points: tuple[float, float]) -> Any:
    return np.array([*points, points[0]], dtype=float)


BLOBS = {
    "triangle": regular(3),
    "right triangle": polygon((20, 50), (80, 50), (50, 80)),
    "square": regular(4),
    "disc": regular(60),
    "star": regular(10, 50, 19),
    "thin star": regular(10, 50, 8),
    "short bar": polygon((0, 0), (90, 0), (90, 30), (0, 30)),
    "letter T": polygon((0, 0), (100, 0), (100, 12), (56, 12), (56, 100), (44, 100), (44, 12), (0, 12)),
    "heart": np.stack([16 * np.sin(TURN) ** 3, -13 * np.cos(TURN) + 5 * np.cos(2 * TURN) + 2 * np.cos(3 * TURN)], 1),
    "cloud": np.stack([(50 + 8 * np.cos(9 * TURN)) * np.cos(TURN), (30 + 8 * np.cos(9 * TURN)) * np.sin(TURN)], 1),
}


@pytest.mark.parametrize("name", BLOBS)
def test_a_blob_is_none(name: str) -> None:
    assert centre_lines([BLOBS[name]]) is None


def test_a_thin_ring_is_one_closed_stroke() -> None:
    for inner in (regular(60, 44), regular(60, 44)[::-1]):
        lines = centre_lines([regular(60, 50), inner])
        assert lines is not None
        (line,) = lines
        np.testing.assert_allclose(np.hypot(*line.T), 47, atol=0.3)
        assert length_of(line) == pytest.approx(2 * np.pi * 47, rel=0.02)
    assert centre_lines([regular(60, 50), regular(60, 10)]) is None


def test_several_outlines_are_strokes_if_each_is_thin() -> None:
    bar = polygon((0, 0), (90, 0), (90, 5), (0, 5))
    lines = centre_lines([bar + np.array((0, shift)) for shift in (0, 40, 80)])
    assert lines is not None
    assert [round(float(line[:, 1].mean())) for line in lines] == [2, 42, 82]
    assert centre_lines([bar, regular(60)]) is None
    # An outline with a hole, like the eye of a needle, is not a stroke, and neither is the hole.
    assert centre_lines([bar, bar * 0.8 + np.array((9, 0.5))]) is None


def test_an_open_outline_was_not_drawn_by_a_pen() -> None:
    assert centre_lines([polygon((0, 0), (90, 0), (90, 5), (0, 5))[:-1]]) is None
