"""Weights, gradient and Adam's moments sharded over the ranks: DeepSpeed's ZeRO, stages 0 to 3."""

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
# The stage that shards the weights too.
_SHARDED_WEIGHTS = 3


def import_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed, which from then on computes on this kind of device.

    Raises:
        ConfigError: if it is not installed.
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
    """The forward pass of a training step, with autocast, which DeepSpeed turns off around the module it is given."""

    def __init__(self, model: Trainable, config: RunConfig, device: torch.device) -> None:
        super().__init__()
        self.model, self.train_config, self.device_type = model, config.train, device.type

    def forward(self, batch: Any) -> Any:
        train = self.train_config
        with torch.autocast(self.device_type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            return self.model(batch, train.accumulation)


class DeepSpeedEngine(Engine):
    """DeepSpeed's engine around torch's Adam (METHOD 8). What each ZeRO stage shards across the ranks:

    - 0: nothing;
    - 1: Adam's moments, and the copy of the weights that Adam works on;
    - 2: the gradient too;
    - 3: everything. All weights are gathered at once for the length of a step: the cells use them as views and
      rearranged copies, which hold the memory of the whole from the forward to the backward pass in any case.

    Args:
        model, config, group: see `Engine`. All ranks must make the engine together.

    Raises:
        ConfigError: if the file train.deepspeed cannot be read or used, or DeepSpeed is not installed.
    """

    def __init__(self, model: Trainable, config: RunConfig, group: Group) -> None:
        deepspeed = group.on_each_rank(lambda: import_deepspeed(group.device))
        # Read once: the ranks' files could differ.
        chosen = group.on_rank_0(lambda: read_options(config.train.deepspeed, config, group.world_size))
        super().__init__(model, config, group)
        self.deepspeed, self.stage = deepspeed, int(chosen["stage"])
        self.name = f"DeepSpeed ZeRO-{self.stage}"
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # The warning would come at every step.
        warnings.filterwarnings("ignore", _OLD_NAMES, FutureWarning)
        # Compiling it takes half a minute, and it helps only processes of one machine.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        with _environment_for(group.device), silent_gloo():
            # It takes the existing process group.
            deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
            self.engine, self.optimizer, *_ = deepspeed.initialize(
                model=_Step(model, config, group.device),
                optimizer=self.adam,
                config=fill_in(chosen, config, group.world_size),
                dist_init_required=False,
            )
        # DeepSpeed's own group of all ranks would wait for as long as its backend's default.
        set_timeout(self.engine.data_parallel_group, config.train.timeout)
        if self.stage == _SHARDED_WEIGHTS:
            # Its hooks gather module by module; `_gathered` gathers all at once.
            self.optimizer.parameter_offload.destroy()
        self._start_adam(self._adams_weights())
        if self.stage in (1, 2):
            # The first step would do this; without it, no weight leads to its moments.
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def _adams_weights(self) -> list[Tensor]:
        """The tensors that Adam updates: the weights, or this rank's flat part of them in one or more tensors."""
        if self.stage == 0:
            return list(self.model.parameters())
        if self.stage == _SHARDED_WEIGHTS:
            return self.optimizer.fp32_partitioned_groups_flat  # type: ignore[no-any-return]
        return self.optimizer.single_partition_of_fp32_groups  # type: ignore[no-any-return]

    def _gathered(self, *parameters: Tensor, to_change: bool = False) -> AbstractContextManager[None]:
        """Inside, these weights are whole on every rank; changes last only with `to_change`."""
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
        """This rank's parts of the gradient, which DeepSpeed takes the step with."""
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
            # As DeepSpeed itself does after an overflow.
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
                # Of buffers there is nothing to gather.
                with self._gathered(own[name], to_change=True):
                    own[name].copy_(tensor)
        if self.stage > 0:
            # Adam works on copies of the weights.
            self.optimizer.refresh_fp32_params()

    def _set_state(self, parameter: Tensor, key: str, value: Tensor) -> None:
        """Set a weight's whole `step` or moment."""
        if self.stage == 0:
            self.adam.state[parameter][key].copy_(value)
        elif key == "step":
            # All weights have taken the same steps, and share the count.
            for weights in self._adams_weights():
                self.adam.state[weights]["step"].copy_(value)
        elif self.stage == _SHARDED_WEIGHTS:
            # DeepSpeed's own setter of the whole fails where the number of ranks does not divide it.
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
        # DeepSpeed would keep the group and gloo's threads alive: by hooks on modules and weights, by the weights, and
        # by a variable for its next engine, whose process group may be another.
        offload = [self.optimizer.parameter_offload] if self.stage == _SHARDED_WEIGHTS else []
        for owner in [self.engine, self.optimizer, *offload, *self.model.parameters()]:
            vars(owner).clear()
        del self.engine, self.optimizer
        self.deepspeed.comm.destroy_process_group(group)
        gc.collect()
