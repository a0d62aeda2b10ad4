"""Retrieval ranks computed literally from their definition, one query after another."""

import numpy as np
import torch


def literal_ranks(queries: torch.Tensor, own: torch.Tensor, gallery: torch.Tensor) -> list[int]:
    ranks = []
    for query, mine in zip(queries.double().numpy(), own.tolist(), strict=True):
        distances = np.square(query - gallery.double().numpy()).sum(1)
        if np.isnan(query).any():
            ranks.append(len(gallery) - 1)
        else:
            # A stable sort keeps equal distances in gallery order.
            ranks.append(np.argsort(distances, kind="stable").tolist().index(mine))
    return ranks
