"""Drawings for rendering tests."""

import numpy as np
import pytest

SQUARE = np.array([[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]])
TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.8], [0.0, 0.0]])
LINE = np.array([[0, 50], [100, 50]])
BROKEN_DRAWINGS = [
    pytest.param([LINE, np.array([[0.0, np.nan]])], "stroke 1 .*finite", id="nan"),
    pytest.param([LINE, np.array([[np.inf, 0.0]])], "stroke 1 .*finite", id="infinite"),
    pytest.param([LINE, np.array([[0.0, 1e300]])], "stroke 1 .*finite", id="overflowing"),
    pytest.param([LINE, np.zeros((0, 2))], "stroke 1 .*shape", id="no point"),
    pytest.param([LINE, np.zeros((4, 3))], "stroke 1 .*shape", id="stroke-3"),
    pytest.param([LINE, np.zeros(2)], "stroke 1 .*shape", id="flat"),
]
