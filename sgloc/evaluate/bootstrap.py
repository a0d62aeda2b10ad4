"""Confidence intervals by the bootstrap (Efron 1979): how far a mean would move, had other sketches been drawn."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_LEVEL = 0.95
# Weights of resamples that are drawn at once.
_MOST_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean and the interval that holds 95 % of its bootstrap resamples; null where there is nothing to average."""

    value: float | None
    low: float | None
    high: float | None


def bootstrap_ratio(
    numerators: npt.NDArray[np.floating], denominators: npt.NDArray[np.floating], *, num_resamples: int, seed: int
) -> Estimate:
    """The ratio of two sums over sketches, which are resampled with replacement.

    Args:
        numerators, denominators: float [n], of each sketch; ones as denominators make it a mean.
        num_resamples: resamples.
        seed: of the resampling.
    """
    if denominators.sum() == 0:
        return Estimate(None, None, None)
    # Sketches that are alike are resampled together, which is the same and makes shares of a million sketches cheap.
    pairs, counts = np.unique(np.stack([numerators, denominators]).astype(np.float64), axis=1, return_counts=True)
    total = counts.sum()
    generator = np.random.default_rng(seed)
    sums = []
    at_once = max(1, _MOST_NUMBERS // len(counts))
    for start in range(0, num_resamples, at_once):
        weights = generator.multinomial(total, counts / total, size=min(at_once, num_resamples - start))
        sums.append(weights @ pairs.T)
    numerator, denominator = np.concatenate(sums).T
    # A resample may hold no sketch that counts.
    ratios = numerator[denominator > 0] / denominator[denominator > 0]
    low, high = np.quantile(ratios, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    value = float((pairs @ counts)[0] / (pairs @ counts)[1])
    return Estimate(value, float(low), float(high))


def bootstrap_mean(values: npt.NDArray[np.floating | np.bool_], *, num_resamples: int, seed: int) -> Estimate:
    """The mean of values [n] of sketches, which are resampled with replacement."""
    numbers = values.astype(np.float64)
    return bootstrap_ratio(numbers, np.ones_like(numbers), num_resamples=num_resamples, seed=seed)
