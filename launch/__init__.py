"""Launchers that start an `sgloc` command in several processes, locally or on a cluster."""
