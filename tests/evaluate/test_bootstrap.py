"""Bootstrap intervals against known results."""

import numpy as np
import pytest

from sgloc.evaluate.bootstrap import Bootstrap


@pytest.mark.parametrize(("hits", "count"), [(30, 100), (1, 1000), (500, 600)])
def test_the_interval_of_a_share_is_the_binomial_one(hits: int, count: int) -> None:
    values = np.arange(count) < hits
    found = Bootstrap(20_000, seed=0).mean(values)
    share = hits / count
    drawn = np.random.default_rng(1).binomial(count, share, 200_000) / count
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found["value"] == pytest.approx(share)
    assert found["low"] == pytest.approx(low, abs=1.01 / count)
    assert found["high"] == pytest.approx(high, abs=1.01 / count)


def test_a_ratio_is_resampled_by_sketch() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 6, 300).astype(float)
    sums = counts * generator.normal(10, 3, 300)
    found = Bootstrap(4000, seed=0).ratio(sums, counts)
    ratios = []
    for _ in range(4000):
        chosen = generator.integers(0, 300, 300)
        ratios.append(sums[chosen].sum() / counts[chosen].sum())
    assert found["value"] == pytest.approx(sums.sum() / counts.sum())
    assert found["low"] is not None
    assert found["high"] is not None
    np.testing.assert_allclose([found["low"], found["high"]], np.quantile(ratios, [0.025, 0.975]), rtol=0.01)


def test_nothing_and_certainty() -> None:
    assert Bootstrap(10, seed=0).ratio(np.zeros(4), np.zeros(4)) == {"value": None, "low": None, "high": None}
    assert Bootstrap(10, seed=0).mean(np.ones(9)) == {"value": 1.0, "low": 1.0, "high": 1.0}
    # A resample may contain only sketches whose count is zero.
    found = Bootstrap(100, seed=0).ratio(np.array([0.0, 5.0]), np.array([0.0, 1.0]))
    assert found == {"value": 5.0, "low": 5.0, "high": 5.0}


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=500)
    first, again, other = (Bootstrap(200, seed).mean(values) for seed in (0, 0, 1))
    assert first == again
    assert first["value"] == other["value"]
    assert first["low"] != other["low"]
