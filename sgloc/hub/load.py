"""A trained model from a folder or URL: of a run, of a checkpoint, or of an exported model."""

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
    """The folder of the checkpoint or exported model that a path means, see `load_model`; all of a checkpoint is
    checked, and those that are skipped are logged.

    Raises:
        CheckpointError: if there is none that is whole.
    """
    return path if is_export(path) else use_checkpoint(path, read_checkpoint)[0]


def load_model(path: str, device: torch.device, kind: str = "") -> Pretrained:
    """Load a model that codes sketches and draws them; skipped checkpoints are logged.

    Args:
        path: folder or URL of a checkpoint; of a run, of which the best checkpoint is taken; or of an exported model.
        device: to put it on.
        kind: name of the model, where it is neither of this program nor of an installed package: `package:Recipe`. Its
            code is imported.

    Raises:
        CheckpointError: if there is no whole checkpoint or exported model there, or none of a model that this program
            can build and that draws.
        ConfigError: if the model that `kind` names cannot be imported.
    """
    folder, about, weights = (path, *read_export(path)) if is_export(path) else read_checkpoint_model(path)
    options = {"model": about.model, **about.training.get("options", {}), "data": about.data}
    recipe = recorded_recipe(options, kind, folder)
    network: Any = build_network(recipe, options, about, folder)
    if not (hasattr(network, "encode") and hasattr(network, "stepper")):
        raise CheckpointError(
            f"{folder} is of the model {about.model['kind']}, which draws nothing; give a run of a model that draws"
        )
    put_weights(network, weights, folder)
    origin = recorded_identity(options, recipe.config_type).get("data.origin", "top_left")
    if origin not in get_args(OriginName):
        raise CheckpointError(f"{folder} has an origin {origin!r} that this program does not know")
    return Pretrained(
        network.to(device).eval(),
        about.scale,
        about.longest_points,
        str(about.data.get("identity", "")),
        cast(OriginName, origin),
    )
