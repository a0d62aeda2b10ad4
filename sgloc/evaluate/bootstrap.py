"""Confidence intervals by the bootstrap (Efron 1979): how far a mean would move, had other sketches been drawn."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

_LEVEL = 0.95
# Weights of resamples that are drawn at once.
_MOST_NUMBERS = 4_000_000


class Estimate(TypedDict):
    """A mean and the interval that holds 95 % of its bootstrap resamples; null where there is nothing to average."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bootstrap:
    """Sketches, resampled with replacement.

    Attributes:
        num_resamples: how often.
        seed: of the resampling.
    """

    num_resamples: int
    seed: int

    def mean(self, values: npt.NDArray[np.floating | np.bool_]) -> Estimate:
        """The mean of values [n] of sketches."""
        return self.ratio(values.astype(np.float64), np.ones(len(values)))

    def ratio(self, numerators: npt.NDArray[np.floating], denominators: npt.NDArray[np.floating]) -> Estimate:
        """The ratio of two sums over sketches.

        Args:
            numerators, denominators: float [n], of each sketch.
        """
        if denominators.sum() == 0:
            return {"value": None, "low": None, "high": None}
        # Sketches that are alike are resampled together, which is the same and makes shares of a million sketches
        # cheap.
        pairs, counts = np.unique(np.stack([numerators, denominators]).astype(np.float64), axis=1, return_counts=True)
        total = counts.sum()
        generator = np.random.default_rng(self.seed)
        sums = []
        at_once = max(1, _MOST_NUMBERS // len(counts))
        for start in range(0, self.num_resamples, at_once):
            weights = generator.multinomial(total, counts / total, size=min(at_once, self.num_resamples - start))
            sums.append(weights @ pairs.T)
        numerator, denominator = np.concatenate(sums).T
        # A resample may hold no sketch that counts.
        ratios = numerator[denominator > 0] / denominator[denominator > 0]
        low, high = np.quantile(ratios, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        value = float((pairs @ counts)[0] / (pairs @ counts)[1])
        return {"value": value, "low": float(low), "high": float(high)}
