"""What engines around torch's Adam have in common (METHOD 8)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sgloc.config import RunConfig
from sgloc.train.engine.clipping import VariableClipping
from sgloc.train.recipe import Trainable

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamEngine:
    """A model with its Adam, and what a checkpoint holds of both.

    Args:
        model: with the same whole weights on every rank, on the device.
        config: of the run.
        device: of this process.
        world_size: the number of processes.
    """

    def __init__(self, model: Trainable, config: RunConfig, device: torch.device, world_size: int) -> None:
        self.model, self.config, self.device = model, config, device
        # Ranks' gradients are averaged; the loss is the sum over a batch whose size is known beforehand.
        self.loss_factor = world_size / config.train.global_batch
        by_variable = config.optimizer.clip_by == "variable"
        self.clipping = VariableClipping(model, config.optimizer.clip_norm) if by_variable else None
        self.adam = torch.optim.Adam(model.parameters(), lr=config.optimizer.learning_rate, fused=True)
        # Computed now: the weights may be sharded later.
        self._layout = _layout(model)

    def layout(self) -> dict[str, Tensor]:
        """See `Engine.layout`."""
        return self._layout

    def snapshot(self, mine: Callable[[str], bool]) -> dict[str, Tensor]:
        """See `Engine.snapshot`."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors() if mine(name)}

    def _tensors(self) -> Iterable[tuple[str, Tensor]]:
        """The tensors of `layout`, each whole until the next one is asked for. All ranks must go through them."""
        raise NotImplementedError

    def _start_adam(self, weights: Iterable[Tensor]) -> None:
        """Give Adam the state that its first step would create, so that a fresh and a resumed run hold the same."""
        for weight in weights:
            moments = {key: torch.zeros_like(weight) for key in MOMENTS}
            self.adam.state[weight] = {"step": torch.zeros((), device=self.device), **moments}

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = learning_rate

    def _keep_buffers(self) -> None:
        """Copy batch norm's statistics, which the forward pass updates, before it does."""
        self._buffers_before = [buffer.clone() for buffer in self.model.buffers()]

    def _restore_buffers(self) -> None:
        for buffer, before in zip(self.model.buffers(), self._buffers_before, strict=True):
            buffer.copy_(before)


def _layout(model: Trainable) -> dict[str, Tensor]:
    """See `Engine.layout`."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors[f"optimizer.{name}.step"] = torch.zeros(())
        tensors |= {f"optimizer.{name}.{key}": parameter.detach() for key in MOMENTS}
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
