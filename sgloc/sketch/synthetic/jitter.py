"""The hand that draws: its random choices and its deviations from the exact curves."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from sgloc.sketch.simplify import resample
from sgloc.sketch.synthetic.curves import Curve, Frame, line

Part = list[Curve]
"""Strokes that belong together, such as a pair of ears: they are drawn in succession and shifted together."""

Option = TypeVar("Option")

# Lengths below are shares of the drawing's larger side, angles are in degrees; all are multiplied by the sloppiness.
PART_SHIFT = 0.010
STROKE_SHIFT = 0.004
STROKE_TURN = 2.5
STROKE_STRETCH = 0.03
WOBBLE = 0.006
# A shorter wave would look like a tremor, not like the swing of a quick hand.
SHORTEST_WAVE = 0.5
# Shares of strokes that are drawn backwards, and that are drawn in two.
REVERSED = 0.06
LIFTED = 0.05
# Only strokes longer than this share of the drawing's side may be drawn in two.
LIFTED_LENGTH = 0.8
# Standard deviation of a part's shift in the drawing order, in positions; and the share of drawings in arbitrary order.
ORDER_SPREAD = 0.5
ORDER_FREE = 0.04


class Hand:
    """One person making one drawing.

    Args:
        generator: the source of all random choices; the first one sets the sloppiness of the hand.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        # 1 for a typical hand.
        self.sloppiness = float(np.clip(np.exp(generator.normal(0, 0.3)), 0.5, 1.6))

    def maybe(self, probability: float) -> bool:
        """Decide whether to draw an optional part."""
        return bool(self.generator.random() < probability)

    def choose(self, *options: Option) -> Option:
        """Pick one of the options with equal probability; repeat an option to prefer it."""
        return options[int(self.generator.integers(len(options)))]

    def count(self, low: int, high: int) -> int:
        """Pick an integer from `low` to `high`, inclusive."""
        return int(self.generator.integers(low, high + 1))

    def between(self, low: float, high: float) -> float:
        """Pick a number between `low` and `high`."""
        return float(self.generator.uniform(low, high))

    def about(self, value: float, spread: float = 0.12) -> float:
        """Multiply `value` by a random positive factor, typically within 1 + `spread` either way."""
        return value * float(np.exp(np.clip(self.generator.normal(0, spread), -2 * spread, 2 * spread)))

    def box(self, frame: Frame) -> Curve:
        """Draw a frame's box from its top left corner; the end does not quite meet the start."""
        miss_x, miss_y = self.generator.normal(0, 0.05 * self.sloppiness, 2).tolist()
        return line(*frame.path((-1, -1), (1, -1), (1, 1), (-1, 1), (-1 + miss_x, -1 + miss_y)))

    def loop(self, frame: Frame) -> Curve:
        """Draw a frame's ellipse, lopsided, from a point near the top; its end misses or overshoots the start."""
        generator, sloppiness = self.generator, self.sloppiness
        start = -90 + generator.normal(0, 15)
        sweep = 360 + np.clip(generator.normal(4, 14 * sloppiness), -35, 35)
        angles = np.linspace(start, start + sweep, 33)
        two, three = np.clip(generator.normal(0, 0.035 * sloppiness, 2), -0.1, 0.1)
        reach = 1 + two * np.cos(np.radians(2 * angles + generator.uniform(0, 360)))
        reach += three * np.cos(np.radians(3 * angles + generator.uniform(0, 360)))
        reach += generator.normal(0, 0.05 * sloppiness) * np.linspace(-0.5, 0.5, len(angles))
        return np.stack(frame.rim(angles, reach), axis=1)

    def finish(self, parts: Iterable[Part]) -> list[Curve]:
        """Draw planned parts in a varied order, with each part and each line slightly off.

        Args:
            parts: the parts of the drawing as planned, large ones first.

        Returns:
            The strokes in drawing order and direction, in the plan's unit.
        """
        planned = [part for part in parts if part]
        points = np.concatenate([curve for part in planned for curve in part])
        size = float(np.ptp(points, axis=0).max())
        strokes: list[Curve] = []
        for part in self._ordered(planned):
            shift = self.generator.normal(0, PART_SHIFT * self.sloppiness * size, 2)
            for curve in part if self.maybe(0.9) else part[::-1]:
                strokes += self._lifted(self._drawn(curve + shift, size), size)
        return self._posed(strokes)

    def _ordered(self, parts: Sequence[Part]) -> list[Part]:
        """Permute parts locally, and occasionally shuffle them all."""
        spread = len(parts) if self.maybe(ORDER_FREE) else ORDER_SPREAD
        places = np.arange(len(parts)) + self.generator.normal(0, spread, len(parts))
        return [parts[index] for index in np.argsort(places)]

    def _drawn(self, curve: Curve, size: float) -> Curve:
        """Draw a curve as a hand does: shifted, rotated, stretched, wobbling, and sometimes backwards."""
        generator = self.generator
        points = resample(curve, 0.01 * size)
        progress = 0.01 * np.arange(len(points))
        turn = generator.normal(0, STROKE_TURN * self.sloppiness)
        stretch = 1 + generator.normal(0, STROKE_STRETCH * self.sloppiness, 2)
        shift = generator.normal(0, STROKE_SHIFT * self.sloppiness * size, 2)
        center = points.mean(axis=0)
        points = _turned((points - center) * stretch, turn) + center + shift
        # Reduce the wobble of short strokes, which have no room for a wide swing.
        width = WOBBLE * self.sloppiness * size * min(1.0, 3 * float(progress[-1]))
        waves = generator.uniform(0, 1 / SHORTEST_WAVE, 4)
        phases = 2 * np.pi * (progress[:, None] * waves + generator.random(4))
        points += np.sin(phases) @ generator.normal(0, width, (4, 2))
        return np.flip(points, axis=0) if self.maybe(REVERSED) else points

    def _lifted(self, stroke: Curve, size: float) -> list[Curve]:
        """Occasionally draw a long stroke in two; the second starts beside or before the end of the first."""
        if 0.01 * len(stroke) < LIFTED_LENGTH or not self.maybe(LIFTED):
            return [stroke]
        end = int(len(stroke) * self.between(0.35, 0.65))
        start = end + int(self.generator.integers(-6, 4))
        return [stroke[:end], stroke[start:] + self.generator.normal(0, STROKE_SHIFT * size, 2)]

    def _posed(self, strokes: list[Curve]) -> list[Curve]:
        """Rotate the whole drawing by a few degrees, stretch it, and mirror it half of the time."""
        turn = self.generator.normal(0, 4)
        stretch = np.array([self.choose(-1, 1) * self.about(1.0, 0.08), 1.0])
        return [_turned(stroke * stretch, turn) for stroke in strokes]


def _turned(curve: Curve, degrees: float) -> Curve:
    """Rotate a curve about the origin."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned: Curve = curve @ np.array([[cosine, sine], [-sine, cosine]])
    return turned
