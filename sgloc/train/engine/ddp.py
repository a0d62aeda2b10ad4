"""Replicated weights: torch's DistributedDataParallel."""

import contextlib
import gc
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from sgloc.config import RunConfig
from sgloc.torch_versions import replicate
from sgloc.train.engine.clipping import Piece, VariableClipping
from sgloc.train.engine.protocol import meta
from sgloc.train.recipe import Trainable


class DDPEngine:
    """Replicated weights, gradients averaged by DistributedDataParallel, Adam (METHOD 8)."""

    name = "DDP"

    def __init__(self, model: Trainable, config: RunConfig, device: torch.device, world_size: int) -> None:
        self.model = model
        self.config, self.device = config, device
        self.replica: nn.Module = model
        self.parameters = list(model.parameters())
        self.clipping = VariableClipping(model, config.optimizer.clip_norm)
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.optimizer.learning_rate, fused=True)
        for parameter in self.parameters:
            # As Adam's first step would make it: so a fresh and a resumed run hold the same names.
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {"step": torch.zeros((), device=device), **moments}
        # DDP takes the mean over ranks of what is to be a sum, over a batch whose size is known beforehand.
        self.loss_factor = world_size / config.train.global_batch
        if world_size > 1:
            self.replica = replicate(model)
            self._settle_buckets()

    def _settle_buckets(self) -> None:
        """One backward pass on a toy batch, whose gradients are thrown away.

        DDP lays out its buckets anew after the first backward pass of a process, by the order in which gradients
        arrived, and the layout decides in which order the ranks' gradients are summed. Were that pass a training step,
        a resumed run would sum in another order than one never stopped.
        """
        # In evaluation mode batch norm's running statistics stay as they are. There the code's variance shows in the
        # divergence alone, and DDP waits for every weight's gradient.
        self.model.eval()
        losses = self.replica(self.model.toy_batch().to(device=self.device))
        torch.stack([term for term in losses if term.requires_grad]).sum().backward()
        self.model.train()
        self.optimizer.zero_grad()

    def backward(self, batch: Any) -> tuple[Any, Tensor]:
        """See `Engine.backward`."""
        train = self.config.train
        self.optimizer.zero_grad()
        # Batch norm's statistics are moved by the forward pass already.
        self.buffers_before = [buffer.clone() for buffer in self.model.buffers()]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            losses = self.replica(batch, train.accumulation)
        (losses.total * self.loss_factor).backward()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self.norm = torch.nn.utils.get_total_norm(gradients)
        return losses._make(term.detach() for term in losses), self.norm

    def update(self, learning_rate: float) -> None:
        """See `Engine.update`."""
        if self.config.optimizer.clip_by == "variable":
            pieces = [
                Piece(number, 0, parameter.grad)
                for number, parameter in enumerate(self.parameters)
                if parameter.grad is not None
            ]
            self.clipping.scale(pieces, self.clipping.squares(pieces))
        else:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.optimizer.clip_norm, self.norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()

    def discard(self) -> None:
        """See `Engine.discard`."""
        self.optimizer.zero_grad()
        for buffer, before in zip(self.model.buffers(), self.buffers_before, strict=True):
            buffer.copy_(before)

    def layout(self) -> dict[str, Tensor]:
        """See `Engine.layout`."""
        return {name: meta(tensor) for name, tensor in self._tensors().items()}

    def snapshot(self, mine: Callable[[str], bool]) -> dict[str, Tensor]:
        """See `Engine.snapshot`."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors().items() if mine(name)}

    @torch.no_grad()
    def restore(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.restore`."""
        own = self._tensors()
        for name, tensor in tensors:
            own[name].copy_(tensor)

    def whole_model(self) -> AbstractContextManager[Trainable]:
        """See `Engine.whole_model`."""
        return contextlib.nullcontext(self.model)

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors themselves, by the names of `layout`."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        return tensors

    def close(self) -> None:
        """See `Engine.close`."""
        # DDP's reducer must not be the last to hold the process group: it would join the group's threads while it holds
        # Python's lock, for which one of them may be waiting. DDP is full of reference cycles, hence the collection.
        del self.replica
        gc.collect()
