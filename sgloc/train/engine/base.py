"""The engine interface, and what all engines that use torch's Adam share (METHOD 8)."""

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
    """Weights, gradients and Adam state of a model, replicated or sharded over the ranks.

    All methods except `layout` are collective: all ranks must call them together.

    Args:
        model: the model, on the device, with the same unsharded weights on every rank.
        config: configuration of the run.
        group: group of the ranks.

    Attributes:
        name: display name, such as "DDP".
        model: the model; call it and read its weights only inside `whole_model`.
    """

    name: str

    def __init__(self, model: Trainable, config: RunConfig, group: Group) -> None:
        self.model, self.config, self.group = model, config, group
        # Engines average gradients over the ranks; the loss is the sum over the global batch, whose size is fixed.
        self.loss_factor = group.world_size / config.train.global_batch
        by_variable = config.optimizer.clip_by == "variable"
        self.clipping = VariableClipping(model, config.optimizer.clip_norm) if by_variable else None
        self.adam = torch.optim.Adam(model.parameters(), lr=config.optimizer.learning_rate, fused=True)
        # Computed now, since an engine may shard the weights later.
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            tensors[f"optimizer.{name}.step"] = torch.zeros(())
            tensors |= {f"optimizer.{name}.{key}": parameter.detach() for key in MOMENTS}
        self._layout = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}

    @abstractmethod
    def backward(self, batch: Any) -> tuple[Any, Tensor]:
        """Compute the gradient of the global batch's mean loss.

        Args:
            batch: this rank's share of the global batch, on the device, prepared for the model.

        Returns:
            This rank's loss terms as the model returned them, detached, and the global gradient norm before clipping,
            0-dimensional and the same on all ranks.
        """

    @abstractmethod
    def update(self, learning_rate: float) -> None:
        """Clip the gradient and take an optimizer step (METHOD 8)."""

    @abstractmethod
    def discard(self) -> None:
        """Drop the gradient instead of calling `update`, and undo all effects of `backward` on checkpointed tensors."""

    def layout(self) -> dict[str, Tensor]:
        """Return every tensor of a checkpoint as a meta tensor, by name; the same for every engine and world size.

        The names are model.<weight or buffer>, and optimizer.<weight>.step, .exp_avg and .exp_avg_sq.
        """
        return self._layout

    def snapshot(self, mine: Callable[[str], bool]) -> dict[str, Tensor]:
        """Copy unsharded tensors of `layout` to host memory: those for whose name `mine` returns True on this rank."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors() if mine(name)}

    @abstractmethod
    def restore(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Load all tensors of `layout`; every rank receives them unsharded and in the same order."""

    @abstractmethod
    def whole_model(self) -> AbstractContextManager[Trainable]:
        """Return a context with unsharded, read-only weights on every rank.

        Inside it, a rank may call the model any number of times, independently of the others.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the process group; no step may follow."""

    @abstractmethod
    def _tensors(self) -> Iterable[tuple[str, Tensor]]:
        """Yield the tensors of `layout`, each unsharded until the next one is requested; all ranks must iterate."""

    def _start_adam(self, weights: Iterable[Tensor]) -> None:
        """Create Adam's state as its first step would, so that fresh and resumed runs have the same state."""
        for weight in weights:
            moments = {key: torch.zeros_like(weight) for key in MOMENTS}
            self.adam.state[weight] = {"step": torch.zeros((), device=self.group.device), **moments}

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = learning_rate

    def _keep_buffers(self) -> None:
        """Copy batch norm's running statistics before a forward pass updates them."""
        self._buffers_before = [buffer.clone() for buffer in self.model.buffers()]

    def _restore_buffers(self) -> None:
        for buffer, before in zip(self.model.buffers(), self._buffers_before, strict=True):
            buffer.copy_(before)
