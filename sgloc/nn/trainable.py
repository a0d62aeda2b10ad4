"""What the training loop asks of a model."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn


class Trainable(nn.Module):
    """A model that the training loop, its engines and its checkpoints work with.

    Attributes:
        loss_names: of the terms that `forward` gives; the last, `total`, is what is minimised.
    """

    loss_names: ClassVar[tuple[str, ...]]

    def forward(self, batch: Any, num_parts: int = 1, checkpoint_decoder: bool = False) -> Any:
        """Loss terms of a batch.

        Args:
            batch: as the model's preparation makes it, on the device.
            num_parts: in how many parts to compute it; the result does not depend on it.
            checkpoint_decoder: see `TrainConfig`.

        Returns:
            A named tuple of 0-dimensional tensors, each a sum over the batch's sketches.
        """
        raise NotImplementedError

    def toy_batch(self) -> Any:
        """The smallest batch there is, on the host."""
        raise NotImplementedError

    def begin_step(self, step: int) -> None:
        """Told before each training step, counted from 0; most losses are the same at every step."""

    def compile_steps(self, backend: str | Callable[..., object] = "inductor") -> None:
        """From now on run by what torch.compile has compiled.

        Args:
            backend: of torch.compile.
        """
        raise NotImplementedError
