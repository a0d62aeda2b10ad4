"""Batched operations on the nine grid graphs."""

from sgloc.ops.grid import NUM_CELLS, grid_adjacency, grid_aggregate, node_adjacency, node_boxes

__all__ = ["NUM_CELLS", "grid_adjacency", "grid_aggregate", "node_adjacency", "node_boxes"]
