"""Ret: the rank of a generated sketch's own original when originals are sorted by code distance (METHOD 10).

Neither a queries x gallery nor a queries x gallery x code width array is allocated: distances are computed tile by tile
with matrix products, in float32 on a CPU and in float64 on CUDA, where the environment can turn float32 into TF32.
Distances that are within rounding error of each other are recomputed in float64, so that a rank depends neither on the
tiles nor on the number of processes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from sgloc.evaluate.bootstrap import Bootstrap, Estimate
from sgloc.evaluate.metric import Arrays, Metric, Models, Originals, Sketches, cell

RET_AT = (1, 10, 50)
_QUERIES = 1024
_TILE = 8192
# Number of pairs whose distances are recomputed at once, and number of rows searched at once for such pairs.
_PAIRS, _ROWS = 65536, 64


class Retrieval(Metric):
    """Retrieval: share of sketches whose own original is among the n nearest originals."""

    name, position, header = "ret", 20, tuple(f"Ret top-{at}" for at in RET_AT)

    def share(self, originals: Originals) -> Arrays:
        """Return gallery: float32 [B, Z], the codes of the originals."""
        return {"gallery": originals.codes}

    def collect(self, sketches: Sketches, models: Models) -> Arrays:
        """Return query: float32 [B, Z], the codes of the sketches."""
        return {"query": sketches.codes}

    def finish(self, arrays: Arrays, shared: Mapping[str, Tensor], rows: Tensor) -> Arrays:
        """Return rank: int64 [n], see `retrieval_ranks`."""
        queries = torch.from_numpy(arrays["query"]).to(rows.device)
        return {"rank": retrieval_ranks(queries, rows, shared["gallery"]).cpu().numpy()}

    def summarise(self, arrays: Arrays, bootstrap: Bootstrap) -> dict[str, Estimate]:
        """Return the shares, from 0 to 1, by the number of nearest originals."""
        return {str(at): bootstrap.mean(arrays["rank"] < at) for at in RET_AT}

    def cells(self, summary: dict[str, Estimate]) -> list[str]:
        """Return the shares in percent."""
        return [cell(share, 100) for share in summary.values()]


METRIC = Retrieval()


def product_type(device: torch.device) -> torch.dtype:
    """Return the dtype in which distances are computed on a device."""
    return torch.float64 if device.type == "cuda" else torch.float32


def retrieval_ranks(queries: Tensor, own: Tensor, gallery: Tensor) -> Tensor:
    """Count the gallery codes that are nearer to each query than its own original's code.

    Ties count if they come earlier in the gallery than the own code.

    Args:
        queries: float32 [n, Z]; a row that is not finite gets the last rank.
        own: int64 [n], the gallery row of each query's original.
        gallery: float32 [N, Z], finite.

    Returns:
        int64 [n], from 0 to N - 1.
    """
    ranks = torch.full_like(own, len(gallery) - 1)
    finite = torch.isfinite(queries).all(1).nonzero()[:, 0]
    # Centre the codes first to reduce cancellation error.
    center = torch.stack([tile.double().sum(0) for tile in gallery.split(_TILE)]).sum(0) / len(gallery)
    center = center.to(product_type(gallery.device))
    half = torch.cat([(tile - center).square().sum(1) for tile in gallery.split(_TILE)]) / 2
    longest = half.max()
    for chosen in finite.split(_QUERIES):
        query, mine = queries[chosen], own[chosen]
        centered, original = query - center, gallery[mine] - center
        score = half[mine] - (centered * original).sum(1)
        # Twice a bound on the rounding error of a score.
        width = gallery.shape[1] + 4
        digits = torch.finfo(score.dtype)
        margin = 2 * width * digits.eps * (torch.sqrt(centered.square().sum(1) * 2 * longest) + longest)
        margin = margin.clamp(min=digits.tiny)
        # One matmul yields ||q - g||^2 / 2 - ||q - own||^2 / 2 (the terms in ||q||^2 cancel).
        left = torch.cat([-centered, torch.ones_like(score)[:, None], -score[:, None]], dim=1)
        count = torch.zeros_like(mine)
        for start in range(0, len(gallery), _TILE):
            tile = slice(start, start + _TILE)
            right = torch.cat([gallery[tile] - center, half[tile, None], torch.ones_like(half[tile, None])], dim=1)
            farther = left @ right.t()
            is_here = ((mine >= start) & (mine < start + _TILE)).nonzero()[:, 0]
            farther[is_here, mine[is_here] - start] = torch.inf
            nearer, not_farther = _count_below(farther, -margin), _count_below(farther, margin)
            count += nearer
            for row in (not_farther > nearer).nonzero()[:, 0].split(_ROWS):
                unsure = (farther[row].abs() <= margin[row, None]).nonzero()
                for pairs in unsure.split(_PAIRS):
                    which, other = row[pairs[:, 0]], start + pairs[:, 1]
                    count.index_add_(0, which, _is_before(query[which], mine[which], other, gallery).long())
        ranks[chosen] = count
    return ranks


def _count_below(values: Tensor, limit: Tensor) -> Tensor:
    """Count the values of each row of [n, N] that are at most its limit [n]; int64 [n].

    Counting in floating point is several times faster than in integers, and exact up to 2**24.
    """
    is_below = torch.le(values, limit[:, None], out=torch.empty_like(values))
    return (is_below @ values.new_ones(values.shape[1])).long()


def _is_before(query: Tensor, own: Tensor, other: Tensor, gallery: Tensor) -> Tensor:
    """Return whether gallery row `other` [n] ranks before row `own` [n] for queries [n, Z]; bool [n]."""
    distance, limit = ((query.double() - gallery[which].double()).square().sum(1) for which in (other, own))
    return (distance < limit) | ((distance == limit) & (other < own))
