"""What the training loop asks of an engine."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from sgloc.train.recipe import Trainable


class Engine(Protocol):
    """Weights, their gradients and their optimizer, spread over the ranks in one way or another.

    Every method but `layout` is collective: all ranks must call it together.

    Attributes:
        name: for people, such as "DDP".
        model: the model itself; to be called, and its weights to be looked at, inside `whole_model` only.
    """

    name: str
    model: Trainable

    def backward(self, batch: Any) -> tuple[Any, Tensor]:
        """The gradient of the global batch's mean loss, from this rank's share of it.

        Args:
            batch: the share, on the device, as the model wants it.

        Returns:
            This rank's loss terms, as the model gives them, and the norm of the whole gradient before clipping,
            0-dimensional and the same on all ranks.
        """
        ...

    def update(self, learning_rate: float) -> None:
        """Clip the gradient and take the optimizer's step with it (METHOD 8)."""
        ...

    def discard(self) -> None:
        """Drop the gradient in place of `update`: everything that a checkpoint holds is as it was before `backward`."""
        ...

    def layout(self) -> dict[str, Tensor]:
        """Shape and type of every tensor that a checkpoint must hold, on the meta device, by name: model.<weight or
        buffer>, and optimizer.<weight>.step, .exp_avg and .exp_avg_sq. The same for every engine and world size."""
        ...

    def snapshot(self, mine: Callable[[str], bool]) -> dict[str, Tensor]:
        """Copies in host memory of those tensors of `layout` that this rank wants, each one whole; the steps that
        follow do not change them."""
        ...

    def restore(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take the values of all tensors of `layout`, which every rank is given whole, in the same order."""
        ...

    def whole_model(self) -> AbstractContextManager[Trainable]:
        """Inside, every weight of the model is whole on every rank, to be read; each rank may call the model as often
        as it likes."""
        ...

    def close(self) -> None:
        """Let go of the process group; no step will follow."""
        ...
