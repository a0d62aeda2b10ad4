"""Measuring what training and drawing cost: `sgloc bench`."""
