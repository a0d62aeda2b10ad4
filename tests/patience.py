"""Timeout for events that tests wait for."""

# Generous enough for a heavily loaded machine: only a hang takes this long.
PATIENCE = 900.0
