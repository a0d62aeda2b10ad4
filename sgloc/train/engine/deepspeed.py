"""The DeepSpeed engine: ZeRO stages 0 to 3, which shard Adam's moments, gradients and weights over the ranks."""

import contextlib
import gc
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sgloc.config import RunConfig
from sgloc.dist import Group
from sgloc.errors import ConfigError
from sgloc.torch_versions import set_timeout, silent_gloo
from sgloc.train.engine.base import MOMENTS, Engine
from sgloc.train.engine.clipping import Piece, whole_pieces
from sgloc.train.engine.deepspeed_options import fill_in, read_options
from sgloc.train.recipe import Trainable

# DeepSpeed calls deprecated functions of torch.distributed.
_OLD_NAMES = r"`torch\.distributed\.(all_gather_into_tensor|reduce_scatter_tensor)` is deprecated"
# The ZeRO stage that shards the weights.
_SHARDED_WEIGHTS = 3


def import_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed for a type of device, which is then fixed for the process.

    Raises:
        ConfigError: if DeepSpeed cannot be imported.
    """
    try:
        with _environment_for(device):
            import deepspeed
    except ImportError as error:
        raise ConfigError(
            f"train.deepspeed is set, but DeepSpeed cannot be imported ({error}); run pip install 'sgloc[deepspeed]', "
            "or leave train.deepspeed empty"
        ) from error
    return deepspeed


@contextlib.contextmanager
def _environment_for(device: torch.device) -> Iterator[None]:
    """Temporarily set DS_ACCELERATOR and LOCAL_RANK, the only way to choose DeepSpeed's device."""
    wanted = {"DS_ACCELERATOR": device.type, "LOCAL_RANK": str(device.index or 0)}
    before = {name: os.environ[name] for name in wanted if name in os.environ}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            os.environ.pop(name, None)
        os.environ.update(before)


class _Step(nn.Module):
    """The forward pass of a training step, including autocast, which DeepSpeed disables around the wrapped module."""

    def __init__(self, model: Trainable, config: RunConfig, device: torch.device) -> None:
        super().__init__()
        self.model, self.train_config, self.device_type = model, config.train, device.type

    def forward(self, batch: Any) -> Any:
        train = self.train_config
        with torch.autocast(self.device_type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            return self.model(batch, train.accumulation)


class DeepSpeedEngine(Engine):
    """DeepSpeed's engine with torch's Adam (METHOD 8).

    Each ZeRO stage shards across the ranks:

    - 0: nothing;
    - 1: Adam's moments, and the copy of the weights that Adam updates;
    - 2: also the gradients;
    - 3: also the weights. All of them are gathered at once for the duration of a step: the recurrent cells use views
      and rearranged copies, which occupy the memory of the unsharded weights from forward to backward pass anyway.

    Args:
        model, config, group: see `Engine`. The constructor is collective.

    Raises:
        ConfigError: if the file train.deepspeed is unreadable or invalid, or DeepSpeed is not installed.
    """

    def __init__(self, model: Trainable, config: RunConfig, group: Group) -> None:
        deepspeed = group.on_each_rank(lambda: import_deepspeed(group.device))
        # Read on rank 0 only, since the file could differ between ranks.
        chosen = group.on_rank_0(lambda: read_options(config.train.deepspeed, config, group.world_size))
        super().__init__(model, config, group)
        self.deepspeed, self.stage = deepspeed, int(chosen["stage"])
        self.name = f"DeepSpeed ZeRO-{self.stage}"
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # torch would repeat the warning at every step.
        warnings.filterwarnings("ignore", _OLD_NAMES, FutureWarning)
        # The operator takes half a minute to compile, and only speeds up processes on one machine.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        with _environment_for(group.device), silent_gloo():
            # DeepSpeed adopts the existing process group.
            deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
            self.engine, self.optimizer, *_ = deepspeed.initialize(
                model=_Step(model, config, group.device),
                optimizer=self.adam,
                config=fill_in(chosen, config, group.world_size),
                dist_init_required=False,
            )
        # DeepSpeed creates its own group of all ranks with the backend's default timeout.
        set_timeout(self.engine.data_parallel_group, config.train.timeout)
        if self.stage == _SHARDED_WEIGHTS:
            # Remove the hooks that gather module by module; `_gathered` gathers all weights at once.
            self.optimizer.parameter_offload.destroy()
        self._start_adam(self._adams_weights())
        if self.stage in (1, 2):
            # DeepSpeed defers this to the first step, but until then weights are not mapped to their moments, which
            # checkpoints access.
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def _adams_weights(self) -> list[Tensor]:
        """Return the tensors that Adam updates: the weights, or this rank's flattened shards of them."""
        if self.stage == 0:
            return list(self.model.parameters())
        if self.stage == _SHARDED_WEIGHTS:
            return self.optimizer.fp32_partitioned_groups_flat  # type: ignore[no-any-return]
        return self.optimizer.single_partition_of_fp32_groups  # type: ignore[no-any-return]

    def _gathered(self, *parameters: Tensor, to_change: bool = False) -> AbstractContextManager[None]:
        """Return a context with these weights unsharded on every rank; changes persist only with `to_change`."""
        modifier, enabled = 0 if to_change else None, self.stage == _SHARDED_WEIGHTS
        return self.deepspeed.zero.GatheredParameters(parameters, modifier, enabled=enabled)  # type: ignore[no-any-return]

    def backward(self, batch: Any) -> tuple[Any, Tensor]:
        """See `Engine.backward`."""
        self._keep_buffers()
        with self._gathered(*self.model.parameters()):
            losses = self.engine(batch)
            self.engine.backward(losses.total * self.loss_factor)
        return losses._make(term.detach() for term in losses), self._gradient_norm()

    def _gradient_norm(self) -> Tensor:
        if self.stage == 0:
            return torch.nn.utils.get_total_norm([piece.gradient for piece in self._pieces()])
        parts = [gradient for group in self.optimizer.averaged_gradients.values() for gradient in group]
        square = torch.nn.utils.get_total_norm(parts).square()
        dist.all_reduce(square)
        return square.sqrt()

    def update(self, learning_rate: float) -> None:
        """See `Engine.update`."""
        self._set_learning_rate(learning_rate)
        if self.clipping is not None:
            pieces = list(self._pieces())
            squares = self.clipping.squares(pieces).to(self.group.device)
            if self.stage > 0:
                dist.all_reduce(squares)
            self.clipping.scale(pieces, squares)
        self.engine.step()

    def _pieces(self) -> Iterator[Piece]:
        """Yield this rank's parts of the gradient that DeepSpeed's step will use."""
        parameters = list(self.model.parameters())
        if self.stage == 0:
            yield from whole_pieces(parameters)
        elif self.stage == _SHARDED_WEIGHTS:
            numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
            for group, gradients in self.optimizer.averaged_gradients.items():
                for parameter, gradient in zip(self.optimizer.fp16_groups[group], gradients, strict=True):
                    yield Piece(numbers[id(parameter)], self.group.rank * gradient.numel(), gradient)
        else:
            for number, parameter in enumerate(parameters):
                mapping: Any = parameter._hp_mapping  # type: ignore[attr-defined]
                if mapping is not None:
                    gradient = mapping.get_lp_grad_fragment(parameter._index_in_param_group)  # type: ignore[attr-defined]
                    yield Piece(number, mapping.lp_fragment_address.start, gradient)

    def discard(self) -> None:
        """See `Engine.discard`."""
        self.optimizer.zero_grad()
        if self.stage > 0:
            # DeepSpeed does the same after an overflow.
            self.optimizer.averaged_gradients.clear()
        self._restore_buffers()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        for name, buffer in self.model.named_buffers():
            yield f"model.{name}", buffer
        step = self.adam.state[self._adams_weights()[0]]["step"]
        whole_moment = self.deepspeed.utils.safe_get_full_optimizer_state
        for name, parameter in self.model.named_parameters():
            with self._gathered(parameter):
                yield f"model.{name}", parameter
            yield f"optimizer.{name}.step", step
            for key in MOMENTS:
                moment = self.adam.state[parameter][key] if self.stage == 0 else whole_moment(parameter, key)
                yield f"optimizer.{name}.{key}", moment

    @torch.no_grad()
    def restore(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.restore`."""
        own: dict[str, Tensor] = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        for full_name, tensor in tensors:
            kind, _, name = full_name.partition(".")
            if kind == "optimizer":
                weight, _, key = name.rpartition(".")
                self._set_state(own[weight], key, tensor)
            else:
                # Gathering is a no-op for buffers.
                with self._gathered(own[name], to_change=True):
                    own[name].copy_(tensor)
        if self.stage > 0:
            # Adam updates copies of the weights.
            self.optimizer.refresh_fp32_params()

    def _set_state(self, parameter: Tensor, key: str, value: Tensor) -> None:
        """Set a weight's `step` or moment from its unsharded value."""
        if self.stage == 0:
            self.adam.state[parameter][key].copy_(value)
        elif key == "step":
            # All weights have taken the same number of steps, and share the counter.
            for weights in self._adams_weights():
                self.adam.state[weights]["step"].copy_(value)
        elif self.stage == _SHARDED_WEIGHTS:
            # DeepSpeed's setter for full states fails if the number of ranks does not divide that of elements.
            size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
            padded = F.pad(value.flatten(), (0, size * self.group.world_size - value.numel()))
            part = padded[self.group.rank * size :][:size]
            self.deepspeed.utils.safe_set_local_optimizer_state(parameter, part, key)
        else:
            self.deepspeed.utils.safe_set_full_optimizer_state(parameter, value, key)

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[Trainable]:
        """See `Engine.whole_model`."""
        with self._gathered(*self.model.parameters()):
            yield self.model

    def close(self) -> None:
        """See `Engine.close`."""
        group = self.engine.data_parallel_group
        self.engine.destroy()
        # DeepSpeed would keep the group and gloo's threads alive: through hooks on modules and weights, through the
        # weights, and through a global that its next engine would reuse, although that may have another process group.
        offload = [self.optimizer.parameter_offload] if self.stage == _SHARDED_WEIGHTS else []
        for owner in [self.engine, self.optimizer, *offload, *self.model.parameters()]:
            vars(owner).clear()
        del self.engine, self.optimizer
        self.deepspeed.comm.destroy_process_group(group)
        gc.collect()
