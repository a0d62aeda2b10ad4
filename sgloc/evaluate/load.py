"""A trained model from its checkpoint."""

from collections.abc import Callable
from typing import Any

import torch

from sgloc.config import DecoderConfig, EncoderConfig, ModelConfig
from sgloc.errors import CheckpointError, ConfigError
from sgloc.nn.sketchgloc import SketchGloc
from sgloc.train.checkpoint import (
    CheckpointManifest,
    find_checkpoint,
    load_tensors,
    read_checkpoint,
    refuse_other_tensors,
)


def _model_config(options: dict[str, Any]) -> ModelConfig:
    return ModelConfig(
        **{**options, "encoder": EncoderConfig(**options["encoder"]), "decoder": DecoderConfig(**options["decoder"])}
    )


def load_model(path: str, device: torch.device, say: Callable[[str], None]) -> tuple[SketchGloc, CheckpointManifest]:
    """Load a model for evaluation.

    Args:
        path: a checkpoint, or a run's folder, of which the best checkpoint is taken.
        device: to put it on.
        say: is told of checkpoints that are skipped.

    Returns:
        The model in evaluation mode, and the checkpoint's manifest.

    Raises:
        CheckpointError: if there is no whole checkpoint of this program there.
    """
    folder = find_checkpoint(path, say)
    manifest = read_checkpoint(folder, verify=False)
    try:
        model = SketchGloc(_model_config(manifest.config["model"]))
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{folder} is of another model: its configuration does not fit this program ({error})"
        ) from error
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    refuse_other_tensors(folder, manifest, tensors)
    load_tensors(folder, manifest, tensors)
    return model.to(device).eval(), manifest
