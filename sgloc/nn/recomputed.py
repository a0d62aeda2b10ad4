"""Activation checkpointing over parts of a batch."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def recomputed(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function without keeping its activations; the backward pass computes them again.

    The random state is not preserved: dropout comes from counters, so there is no generator state to restore.
    """
    return cast(Result, checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False))


def parts_of(batch: Any, num_parts: int) -> list[Any]:
    """Split a batch into at most `num_parts` parts; no part is empty unless the batch is."""
    if num_parts == 1:
        return [batch]
    bounds = [len(batch) * part // num_parts for part in range(num_parts + 1)]
    return [batch.part(start, stop) for start, stop in itertools.pairwise(bounds) if start < stop] or [batch]


def of_each_part(function: Callable[..., Result], *arguments: Sequence[Any]) -> list[Result]:
    """Call a function for each part of a batch, checkpointing its activations unless there is only one part.

    Args:
        function: called once per part.
        arguments: one sequence per argument of the function, with one value per part.

    Returns:
        The function's result for each part.
    """
    parts = list(zip(*arguments, strict=True))
    return [function(*parts[0])] if len(parts) == 1 else [recomputed(function, *part) for part in parts]
