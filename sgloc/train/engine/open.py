"""The engine that a configuration asks for."""

import torch

from sgloc.config import Config
from sgloc.nn.sketchgloc import SketchGloc
from sgloc.train.engine.ddp import DDPEngine
from sgloc.train.engine.protocol import Engine


def open_engine(model: SketchGloc, config: Config, device: torch.device, world_size: int) -> Engine:
    """The engine to train a model with.

    Args:
        model: with the same weights on every rank, on the device.
        config: of the run.
        device: of this process.
        world_size: the number of processes.

    Raises:
        ConfigError: if there is none for this configuration here.
    """
    return DDPEngine(model, config, device, world_size)
