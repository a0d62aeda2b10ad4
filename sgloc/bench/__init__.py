"""Benchmarks of training and inference: `sgloc bench`."""
