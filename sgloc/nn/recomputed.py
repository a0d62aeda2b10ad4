"""Parts of a batch whose activations are not kept."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def recomputed(function: Callable[..., Result], *arguments: Any) -> Result:
    """A function's result, computed again in the backward pass. Dropout comes from counters, so there is no generator
    state to restore."""
    return cast(Result, checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False))


def parts_of(batch: Any, num_parts: int) -> list[Any]:
    """A batch in at most so many parts, none of them empty unless the batch is."""
    if num_parts == 1:
        return [batch]
    bounds = [len(batch) * part // num_parts for part in range(num_parts + 1)]
    return [batch.part(start, stop) for start, stop in itertools.pairwise(bounds) if start < stop] or [batch]


def of_each_part(function: Callable[..., Result], *arguments: Sequence[Any]) -> list[Result]:
    """A function's result for each part of a batch, recomputed unless there is only one.

    Args:
        function: of one part.
        arguments: for the function, one a part each.
    """
    parts = list(zip(*arguments, strict=True))
    return [function(*parts[0])] if len(parts) == 1 else [recomputed(function, *part) for part in parts]
