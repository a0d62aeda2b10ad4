"""Lines that a program draws twice, to make them look as if drawn by hand (rough.js, and with it Excalidraw)."""

import itertools
from collections.abc import Sequence

import numpy as np

from sgloc.sketch.simplify import points_along
from sgloc.sketch.svg.paths import Chain, flattened

# Two passes lie within so many widths of their stroke, and within this share of its length.
_MOST_WIDTHS, _MOST_SHARE = 3.0, 0.15
_PLACES = 48


def without_second_passes(chains: Sequence[Chain], stroke_width: float) -> tuple[list[Chain], int]:
    """The chains of one path without those that repeat the one before, and how many those were.

    Only a path that is nothing but pairs of curves, the second of each along the first, is taken to be drawn twice; and
    not if a pair lies along the one before, as in hatching.

    Args:
        chains: of the path.
        stroke_width: in their unit.
    """
    pairs = list(zip(chains[::2], chains[1::2], strict=False))
    if not pairs or len(chains) % 2 or not all(_is_repeated(*pair, stroke_width) for pair in pairs):
        return list(chains), 0
    if any(_is_repeated(one, other, stroke_width) for (_, one), (other, _) in itertools.pairwise(pairs)):
        return list(chains), 0
    return [first for first, _ in pairs], len(pairs)


def _is_repeated(first: Chain, second: Chain, stroke_width: float) -> bool:
    """Whether two chains are two passes of one curve."""
    if _is_straight(first) or _is_straight(second):
        return False
    side = float(np.ptp(np.concatenate([first, second]), axis=0).max())
    limit = min(_MOST_WIDTHS * stroke_width, _MOST_SHARE * side)
    # Ends and size tell most that are none, at no cost.
    if np.abs(first.min(0) - second.min(0)).max() > limit or np.abs(first.max(0) - second.max(0)).max() > limit:
        return False
    one, other = (_spread(flattened(chain, side / 200)) for chain in (first, second))
    gaps = np.hypot(*(one[:, None] - other[None, :]).transpose(2, 0, 1))
    # Between two places of the other line a place may be as far as half their distance.
    slack = float(np.hypot(*np.diff(other, axis=0).T).max()) / 2
    return bool(max(gaps.min(0).max(), gaps.min(1).max()) <= limit + slack)


def _is_straight(chain: Chain) -> bool:
    """Whether a chain is nothing but lines, which hand-drawn curves are not even where they look so."""
    bends = np.concatenate([chain[:-1:3] - 2 * chain[1::3] + chain[2::3], chain[1::3] - 2 * chain[2::3] + chain[3::3]])
    return bool(np.abs(bends).max() <= 1e-9 * np.abs(chain).max())


def _spread(line: Chain) -> Chain:
    """Places at equal distances along a line, both ends among them."""
    return points_along(line, lambda length: np.linspace(0, length, _PLACES))
