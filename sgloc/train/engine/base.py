"""What the training loop asks of an engine, and what all engines around torch's Adam have in common (METHOD 8)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from sgloc.config import RunConfig
from sgloc.dist import Group
from sgloc.train.engine.clipping import VariableClipping
from sgloc.train.recipe import Trainable

MOMENTS = ("exp_avg", "exp_avg_sq")


class Engine(ABC):
    """Weights, their gradients and their Adam, spread over the ranks in one way or another.

    Every method but `layout` is collective: all ranks must call it together.

    Args:
        model: with the same whole weights on every rank, on the device.
        config: of the run.
        group: of the ranks.

    Attributes:
        name: for people, such as "DDP".
        model: the model itself; to be called, and its weights to be looked at, inside `whole_model` only.
    """

    name: str

    def __init__(self, model: Trainable, config: RunConfig, group: Group) -> None:
        self.model, self.config, self.group = model, config, group
        # Ranks' gradients are averaged; the loss is the sum over a batch whose size is known beforehand.
        self.loss_factor = group.world_size / config.train.global_batch
        by_variable = config.optimizer.clip_by == "variable"
        self.clipping = VariableClipping(model, config.optimizer.clip_norm) if by_variable else None
        self.adam = torch.optim.Adam(model.parameters(), lr=config.optimizer.learning_rate, fused=True)
        # Now, for the weights may be sharded later.
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            tensors[f"optimizer.{name}.step"] = torch.zeros(())
            tensors |= {f"optimizer.{name}.{key}": parameter.detach() for key in MOMENTS}
        self._layout = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}

    @abstractmethod
    def backward(self, batch: Any) -> tuple[Any, Tensor]:
        """The gradient of the global batch's mean loss, from this rank's share of it.

        Args:
            batch: the share, on the device, as the model wants it.

        Returns:
            This rank's loss terms, as the model gives them, and the norm of the whole gradient before clipping,
            0-dimensional and the same on all ranks.
        """

    @abstractmethod
    def update(self, learning_rate: float) -> None:
        """Clip the gradient and take the optimizer's step with it (METHOD 8)."""

    @abstractmethod
    def discard(self) -> None:
        """Drop the gradient in place of `update`: everything that a checkpoint holds is as it was before `backward`."""

    def layout(self) -> dict[str, Tensor]:
        """Shape and type of every tensor that a checkpoint must hold, on the meta device, by name: model.<weight or
        buffer>, and optimizer.<weight>.step, .exp_avg and .exp_avg_sq. The same for every engine and world size."""
        return self._layout

    def snapshot(self, mine: Callable[[str], bool]) -> dict[str, Tensor]:
        """Copies in host memory of those tensors of `layout` that this rank wants, each one whole; the steps that
        follow do not change them."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors() if mine(name)}

    @abstractmethod
    def restore(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take the values of all tensors of `layout`, which every rank is given whole, in the same order."""

    @abstractmethod
    def whole_model(self) -> AbstractContextManager[Trainable]:
        """Inside, every weight of the model is whole on every rank, to be read; each rank may call the model as often
        as it likes."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the process group; no step will follow."""

    @abstractmethod
    def _tensors(self) -> Iterable[tuple[str, Tensor]]:
        """The tensors of `layout`, each whole until the next one is asked for. All ranks must go through them."""

    def _start_adam(self, weights: Iterable[Tensor]) -> None:
        """Give Adam the state that its first step would create, so that a fresh and a resumed run hold the same."""
        for weight in weights:
            moments = {key: torch.zeros_like(weight) for key in MOMENTS}
            self.adam.state[weight] = {"step": torch.zeros((), device=self.group.device), **moments}

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = learning_rate

    def _keep_buffers(self) -> None:
        """Copy batch norm's statistics, which the forward pass updates, before it does."""
        self._buffers_before = [buffer.clone() for buffer in self.model.buffers()]

    def _restore_buffers(self) -> None:
        for buffer, before in zip(self.model.buffers(), self._buffers_before, strict=True):
            buffer.copy_(before)
