"""Front ends that start `sgloc train`; no training logic."""
