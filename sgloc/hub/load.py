"""Loading a trained model from the folder or URL of a run, a checkpoint or an exported model."""

from typing import Any, cast, get_args

import torch

from sgloc.config import OriginName, recorded_identity
from sgloc.errors import CheckpointError
from sgloc.hub.export import is_export, read_checkpoint_model, read_export
from sgloc.inference.pretrained import Pretrained
from sgloc.models import recorded_recipe
from sgloc.models.trained import build_network
from sgloc.train.checkpoint.load import put_weights, read_checkpoint, use_checkpoint


def whole_model(path: str) -> str:
    """Return the folder of the checkpoint or exported model that `load_model` would load from a path.

    Checkpoints are verified completely; damaged ones are skipped and logged.

    Raises:
        CheckpointError: if `path` holds no intact model.
    """
    return path if is_export(path) else use_checkpoint(path, read_checkpoint)[0]


def load_model(path: str, device: torch.device, kind: str = "") -> Pretrained:
    """Load a model that encodes and draws sketches; checkpoints skipped as damaged are logged.

    Args:
        path: folder or URL of a checkpoint, of an exported model, or of a run, whose best checkpoint is loaded.
        device: device to put the model on.
        kind: kind of a model that neither this program nor an installed package provides, as `package:Recipe`; its code
            is imported.

    Raises:
        CheckpointError: if `path` holds no intact checkpoint or exported model, or a model that cannot be built or
            cannot draw.
        ConfigError: if the model named by `kind` cannot be imported.
    """
    folder, about, weights = (path, *read_export(path)) if is_export(path) else read_checkpoint_model(path)
    options = {"model": about.model, **about.training.get("options", {}), "data": about.data}
    recipe = recorded_recipe(options, kind, folder)
    network: Any = build_network(recipe, options, about, folder)
    if not (hasattr(network, "encode") and hasattr(network, "stepper")):
        raise CheckpointError(
            f"{folder} holds the model {about.model['kind']}, which cannot draw; pass a run of a model that can"
        )
    put_weights(network, weights, folder)
    origin = recorded_identity(options, recipe.config_type).get("data.origin", "top_left")
    if origin not in get_args(OriginName):
        raise CheckpointError(f"{folder} has the origin {origin!r}, which is unknown to this program")
    return Pretrained(
        network.to(device).eval(),
        about.scale,
        about.longest_points,
        str(about.data.get("identity", "")),
        cast(OriginName, origin),
    )
