"""A trained model from a checkpoint, or from what `sgloc checkpoint export` wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch

from sgloc.config import OriginName, recorded_identity
from sgloc.errors import CheckpointError
from sgloc.hub.export import is_export, read_export
from sgloc.inference.network import Network
from sgloc.inference.pretrained import Pretrained
from sgloc.models import recorded_kind, recorded_recipe
from sgloc.models.trained import build_network, load_weights
from sgloc.train.checkpoint import read_manifest, use_checkpoint
from sgloc.train.recipe import DataFacts


def _build(options: Mapping[str, Any], data: DataFacts, folder: str, kind: str) -> tuple[Network, OriginName]:
    """The untrained network of a configuration that a file holds, and the origin of the drawings that it knows."""
    recipe = recorded_recipe(options, kind)
    network = build_network(recipe, options, data, folder)
    if not isinstance(network, Network):
        raise CheckpointError(
            f"{folder} is of a {recorded_kind(options)}, which draws nothing; give another model's run"
        )
    origin = recorded_identity(options, recipe.config_type).get("data.origin", "top_left")
    if origin not in get_args(OriginName):
        raise CheckpointError(f"{folder} has an origin {origin!r} that this program does not know")
    return network, cast(OriginName, origin)


@dataclass(frozen=True)
class _Facts:
    """Of an export's data set (see `DataFacts`)."""

    longest_points: int
    num_categories: int


def _load_export(folder: str, kind: str) -> Pretrained:
    about, tensors = read_export(folder)
    facts = _Facts(about.longest_points, about.data.get("categories") or 0)
    model, origin = _build({"model": about.model, "data": about.data}, facts, folder, kind)
    for name, own in model.state_dict().items():
        found = tensors.get(name)
        if found is None or (found.shape, found.dtype) != (own.shape, own.dtype):
            raise CheckpointError(f"{folder} is of another model: it has no tensor {name} like this program's")
        own.copy_(found)
    return Pretrained(model, about.scale, about.longest_points, str(about.data.get("identity", "")), origin)


def _load_checkpoint(folder: str, kind: str) -> Pretrained:
    manifest = read_manifest(folder)
    model, origin = _build(manifest.config, manifest, folder, kind)
    load_weights(model, folder, manifest)
    return Pretrained(model, manifest.scale, manifest.longest_points, manifest.data_identity, origin)


def load_model(path: str, device: torch.device, kind: str = "") -> Pretrained:
    """Load a model for evaluation; checkpoints that are skipped are logged.

    Args:
        path: folder or URL of a checkpoint; of a run, of which the best checkpoint is taken; or of an exported model.
        device: to put it on.
        kind: name of the model, where it is neither of this program nor of an installed package: `package:Recipe`. Its
            code is imported.

    Raises:
        CheckpointError: if there is no whole checkpoint or exported model of this program there.
    """
    with torch.no_grad():
        if is_export(path):
            pretrained = _load_export(path, kind)
        else:
            _, pretrained = use_checkpoint(path, lambda folder: _load_checkpoint(folder, kind))
    pretrained.model.to(device).eval()
    return pretrained
