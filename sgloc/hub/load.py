"""A trained model from a checkpoint, or from what `sgloc checkpoint export` wrote."""

import logging
from typing import Any, cast, get_args

import torch
from torch import Tensor

from sgloc.config import OriginName, rebuilt, recorded_identity
from sgloc.errors import CheckpointError, ConfigError
from sgloc.hub.export import is_export, read_export
from sgloc.inference.pretrained import Pretrained
from sgloc.models.sketchgloc.config import Config, ModelConfig
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.train.checkpoint import CheckpointManifest, load_tensors, read_manifest, use_checkpoint

logger = logging.getLogger(__name__)

_PREFIX = "model."


def _build(options: dict[str, Any], folder: str) -> SketchGloc:
    """A model of a configuration that a file holds; options younger than the file have what was done before them."""
    try:
        return SketchGloc(rebuilt(ModelConfig, options))
    except (TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{folder} is of another model: its configuration does not fit this program ({error})"
        ) from error


def _origin(config: dict[str, Any], folder: str) -> OriginName:
    """The data.origin of a configuration, or what it was before there was a choice."""
    origin = recorded_identity(config, Config)["data.origin"]
    if origin not in get_args(OriginName):
        raise CheckpointError(f"{folder} has an origin {origin!r} that this program does not know")
    return cast(OriginName, origin)


def _load_export(folder: str) -> Pretrained:
    about, tensors = read_export(folder)
    model = _build(about.model, folder)
    for name, own in model.state_dict().items():
        found = tensors.get(name)
        if found is None or (found.shape, found.dtype) != (own.shape, own.dtype):
            raise CheckpointError(f"{folder} is of another model: it has no tensor {name} like this program's")
        own.copy_(found)
    origin = _origin({"data": about.data}, folder)
    return Pretrained(model, about.scale, about.longest_points, str(about.data.get("identity", "")), origin)


def _load_checkpoint(folder: str) -> Pretrained:
    manifest: CheckpointManifest = read_manifest(folder)
    if "raster" in manifest.config:
        raise CheckpointError(f"{folder} is of a classifier, which draws nothing; give a run of `sgloc train`")
    model = _build(manifest.config.get("model", {}), folder)
    own: dict[str, Tensor] = {f"{_PREFIX}{name}": tensor for name, tensor in model.state_dict().items()}
    for name, tensor in load_tensors(folder, manifest, own).items():
        own[name].copy_(tensor)
    origin = _origin(manifest.config, folder)
    return Pretrained(model, manifest.scale, manifest.longest_points, manifest.data_identity, origin)


def load_model(path: str, device: torch.device) -> Pretrained:
    """Load a model for evaluation; checkpoints that are skipped are logged.

    Args:
        path: folder or URL of a checkpoint; of a run, of which the best checkpoint is taken; or of an exported model.
        device: to put it on.

    Raises:
        CheckpointError: if there is no whole checkpoint or exported model of this program there.
    """
    with torch.no_grad():
        if is_export(path):
            pretrained = _load_export(path)
        else:
            _, pretrained = use_checkpoint(path, _load_checkpoint)
    pretrained.model.to(device).eval()
    return pretrained
