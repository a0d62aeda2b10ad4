"""Parts of a batch whose activations are not kept."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def recomputed(function: Callable[..., Result], *arguments: Any) -> Result:
    """A function's result, computed again in the backward pass. Dropout comes from counters, so there is no generator
    state to restore."""
    return cast(Result, checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False))
