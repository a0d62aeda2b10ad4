"""Removal of second passes: rough.js, which Excalidraw uses, draws each line twice to make it look hand-drawn."""

import itertools
from collections.abc import Sequence

import numpy as np

from sgloc.sketch.simplify import points_along
from sgloc.sketch.svg.paths import Chain, flattened

# Largest distance between two passes of a line: in stroke widths, and as a share of the line's larger side.
_MOST_WIDTHS, _MOST_SHARE = 3.0, 0.15
_PLACES = 48


def without_second_passes(chains: Sequence[Chain], stroke_width: float) -> tuple[list[Chain], int]:
    """Remove the chains of a path that repeat the previous one.

    A path counts as drawn twice only if it consists of pairs of curves, the second of each following the first; and not
    if a pair follows the previous pair, as in hatching.

    Args:
        chains: the chains of the path.
        stroke_width: in the unit of the chains.

    Returns:
        The remaining chains, and the number of chains removed.
    """
    pairs = list(zip(chains[::2], chains[1::2], strict=False))
    if not pairs or len(chains) % 2 or not all(_is_repeated(*pair, stroke_width) for pair in pairs):
        return list(chains), 0
    if any(_is_repeated(one, other, stroke_width) for (_, one), (other, _) in itertools.pairwise(pairs)):
        return list(chains), 0
    return [first for first, _ in pairs], len(pairs)


def _is_repeated(first: Chain, second: Chain, stroke_width: float) -> bool:
    """Return whether two chains are two passes of the same curve."""
    if _is_straight(first) or _is_straight(second):
        return False
    side = float(np.ptp(np.concatenate([first, second]), axis=0).max())
    limit = min(_MOST_WIDTHS * stroke_width, _MOST_SHARE * side)
    # Comparing the bounding boxes rules out most pairs at no cost.
    if np.abs(first.min(0) - second.min(0)).max() > limit or np.abs(first.max(0) - second.max(0)).max() > limit:
        return False
    one, other = (_spread(flattened(chain, side / 200)) for chain in (first, second))
    gaps = np.hypot(*(one[:, None] - other[None, :]).transpose(2, 0, 1))
    # The nearest sample of the other line may be off by half the distance between its samples.
    slack = float(np.hypot(*np.diff(other, axis=0).T).max()) / 2
    return bool(max(gaps.min(0).max(), gaps.min(1).max()) <= limit + slack)


def _is_straight(chain: Chain) -> bool:
    """Return whether a chain consists of straight lines only; hand-drawn curves are never exactly straight."""
    bends = np.concatenate([chain[:-1:3] - 2 * chain[1::3] + chain[2::3], chain[1::3] - 2 * chain[2::3] + chain[3::3]])
    return bool(np.abs(bends).max() <= 1e-9 * np.abs(chain).max())


def _spread(line: Chain) -> Chain:
    """Sample points at equal distances along a line, including both ends."""
    return points_along(line, lambda length: np.linspace(0, length, _PLACES))
