"""The engine that a configuration asks for."""

import contextlib

import torch

from sgloc.config import RunConfig
from sgloc.dist import Group
from sgloc.errors import ConfigError
from sgloc.train.engine.ddp import DDPEngine
from sgloc.train.engine.deepspeed import DeepSpeedEngine, import_deepspeed
from sgloc.train.engine.deepspeed_options import read_options
from sgloc.train.engine.protocol import Engine
from sgloc.train.recipe import Trainable


def prepare_engine(config: RunConfig, device: torch.device) -> None:
    """Import what the engine needs, to be called before there is a process group: DeepSpeed takes that as a default of
    arguments, so that gloo's threads would outlive it and might abort the process as it ends."""
    if config.train.deepspeed:
        # That it is missing is told by `open_engine`, on all ranks together.
        with contextlib.suppress(ConfigError):
            import_deepspeed(device)


def open_engine(model: Trainable, config: RunConfig, group: Group) -> Engine:
    """The engine to train a model with. All ranks must call it together.

    Args:
        model: with the same weights on every rank, on the device.
        config: of the run.
        group: of the ranks.

    Raises:
        ConfigError: if there is none for this configuration here.
    """
    path = config.train.deepspeed
    if not path:
        return DDPEngine(model, config, group.device, group.world_size)
    group.on_each_rank(lambda: import_deepspeed(group.device))
    # Read once: the ranks' files could differ.
    chosen = group.on_rank_0(lambda: read_options(path, config, group.world_size))
    return DeepSpeedEngine(model, config, group.device, group.world_size, chosen)
