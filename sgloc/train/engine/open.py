"""The engine that a configuration asks for."""

import contextlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

import torch

from sgloc.config import RunConfig
from sgloc.dist import Group
from sgloc.errors import ConfigError
from sgloc.train.engine.base import Engine
from sgloc.train.engine.deepspeed import import_deepspeed
from sgloc.train.recipe import Trainable

# By train.engine: the engine's class, which takes a model, the configuration and the ranks, as "module:name".
ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "ddp": "sgloc.train.engine.ddp:DDPEngine",
        "deepspeed": "sgloc.train.engine.deepspeed:DeepSpeedEngine",
    }
)


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
    name = "deepspeed" if config.train.deepspeed else config.train.engine
    if name not in ENGINES:
        raise ConfigError(f"train.engine must be one of {', '.join(ENGINES)}, not {name}")
    engine: Engine = pkgutil.resolve_name(ENGINES[name])(model, config, group)
    return engine
