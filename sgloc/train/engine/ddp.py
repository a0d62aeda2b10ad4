"""The DDP engine: replicated weights."""

import contextlib
import gc
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from sgloc.config import RunConfig
from sgloc.dist import Group
from sgloc.torch_versions import replicate
from sgloc.train.engine.base import Engine
from sgloc.train.engine.clipping import whole_pieces
from sgloc.train.recipe import Trainable


class DDPEngine(Engine):
    """Replicated weights, gradients averaged by torch's DistributedDataParallel, and Adam (METHOD 8)."""

    name = "DDP"

    def __init__(self, model: Trainable, config: RunConfig, group: Group) -> None:
        super().__init__(model, config, group)
        self.replica: nn.Module = model
        self.parameters = list(model.parameters())
        self._start_adam(self.parameters)
        if group.world_size > 1:
            self.replica = replicate(model)
            self._settle_buckets()

    def _settle_buckets(self) -> None:
        """Run one backward pass on a toy batch, and discard its gradients, so that DDP settles its bucket layout.

        After a process's first backward pass, DDP rebuilds its buckets in the order in which gradients arrived, and the
        layout determines the order in which gradients are summed over the ranks. If that first pass were a training
        step, a resumed run would sum in a different order than an uninterrupted one.
        """
        # Evaluation mode leaves batch norm's running statistics alone. In that mode only the KL divergence depends on
        # the latent code's variance, so all terms are summed: DDP waits for the gradient of every weight.
        self.model.eval()
        losses = self.replica(self.model.toy_batch().to(device=self.group.device))
        torch.stack([term for term in losses if term.requires_grad]).sum().backward()
        self.model.train()
        self.adam.zero_grad()

    def backward(self, batch: Any) -> tuple[Any, Tensor]:
        """See `Engine.backward`."""
        train = self.config.train
        self.adam.zero_grad()
        self._keep_buffers()
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            losses = self.replica(batch, train.accumulation)
        (losses.total * self.loss_factor).backward()
        self.norm = torch.nn.utils.get_total_norm([piece.gradient for piece in whole_pieces(self.parameters)])
        return losses._make(term.detach() for term in losses), self.norm

    def update(self, learning_rate: float) -> None:
        """See `Engine.update`."""
        if self.clipping is not None:
            pieces = whole_pieces(self.parameters)
            self.clipping.scale(pieces, self.clipping.squares(pieces))
        else:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.optimizer.clip_norm, self.norm)
        self._set_learning_rate(learning_rate)
        self.adam.step()

    def discard(self) -> None:
        """See `Engine.discard`."""
        self.adam.zero_grad()
        self._restore_buffers()

    @torch.no_grad()
    def restore(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.restore`."""
        own = dict(self._tensors())
        for name, tensor in tensors:
            own[name].copy_(tensor)

    def whole_model(self) -> AbstractContextManager[Trainable]:
        """See `Engine.whole_model`."""
        return contextlib.nullcontext(self.model)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        for name, value in self.model.state_dict().items():
            yield f"model.{name}", value
        for name, parameter in self.model.named_parameters():
            for key, value in self.adam.state[parameter].items():
                yield f"optimizer.{name}.{key}", value

    def close(self) -> None:
        """See `Engine.close`."""
        # DDP's reducer must not hold the last reference to the process group: it would join the group's threads while
        # holding the GIL, for which one of them may be waiting. DDP has reference cycles, hence the garbage collection.
        del self.replica
        gc.collect()
