"""Create the engine that a configuration selects."""

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

# Engine classes as "module:name", by the value of train.engine; each is called with (model, config, group).
ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "ddp": "sgloc.train.engine.ddp:DDPEngine",
        "deepspeed": "sgloc.train.engine.deepspeed:DeepSpeedEngine",
    }
)


def prepare_engine(config: RunConfig, device: torch.device) -> None:
    """Import the engine's libraries; call this before the process group is created.

    When imported, DeepSpeed binds an existing default group as an argument default. That reference would keep gloo's
    threads alive until exit, where they may abort the process.
    """
    if config.train.deepspeed:
        # `open_engine` reports a missing DeepSpeed, on all ranks together.
        with contextlib.suppress(ConfigError):
            import_deepspeed(device)


def open_engine(model: Trainable, config: RunConfig, group: Group) -> Engine:
    """Create the engine for a model. Collective.

    Args:
        model: the model, on the device, with the same weights on every rank.
        config: configuration of the run.
        group: group of the ranks.

    Raises:
        ConfigError: if the configured engine is unknown or not available.
    """
    name = "deepspeed" if config.train.deepspeed else config.train.engine
    if name not in ENGINES:
        raise ConfigError(f"train.engine must be one of {', '.join(ENGINES)}, not {name}")
    engine: Engine = pkgutil.resolve_name(ENGINES[name])(model, config, group)
    return engine
