"""Bootstrap confidence intervals (Efron 1979): the variation of a mean under resampling of the sketches."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

_LEVEL = 0.95
# Maximum number of resampling weights drawn at once, which bounds memory.
_MOST_NUMBERS = 4_000_000


class Estimate(TypedDict):
    """A mean and the interval containing 95 % of its bootstrap resamples; null if there is nothing to average."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bootstrap:
    """Estimator that resamples sketches with replacement.

    Attributes:
        num_resamples: number of resamples.
        seed: seed of the resampling.
    """

    num_resamples: int
    seed: int

    def mean(self, values: npt.NDArray[np.floating | np.bool_]) -> Estimate:
        """Estimate the mean of values [n], one per sketch."""
        return self.ratio(values.astype(np.float64), np.ones(len(values)))

    def ratio(self, numerators: npt.NDArray[np.floating], denominators: npt.NDArray[np.floating]) -> Estimate:
        """Estimate the ratio of two sums over sketches.

        Args:
            numerators: float [n], each sketch's term of the upper sum.
            denominators: float [n], each sketch's term of the lower sum.
        """
        if denominators.sum() == 0:
            return {"value": None, "low": None, "high": None}
        # Sketches with equal values are resampled as one multinomial class: the same distribution, and cheap even for
        # shares of a million sketches.
        pairs, counts = np.unique(np.stack([numerators, denominators]).astype(np.float64), axis=1, return_counts=True)
        total = counts.sum()
        generator = np.random.default_rng(self.seed)
        sums = []
        at_once = max(1, _MOST_NUMBERS // len(counts))
        for start in range(0, self.num_resamples, at_once):
            weights = generator.multinomial(total, counts / total, size=min(at_once, self.num_resamples - start))
            sums.append(weights @ pairs.T)
        numerator, denominator = np.concatenate(sums).T
        # Skip resamples whose denominator is zero.
        ratios = numerator[denominator > 0] / denominator[denominator > 0]
        low, high = np.quantile(ratios, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        value = float((pairs @ counts)[0] / (pairs @ counts)[1])
        return {"value": value, "low": float(low), "high": float(high)}
