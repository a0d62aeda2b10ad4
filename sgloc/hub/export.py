"""Export of a trained model for sharing: model.safetensors, config.json, and README.md, the model card."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from sgloc.errors import CheckpointError
from sgloc.masking import mask_all
from sgloc.models import recorded_kind
from sgloc.storage import Storage
from sgloc.strict_json import to_json
from sgloc.templates import fill
from sgloc.train.checkpoint.format import CheckpointManifest, read_manifest
from sgloc.train.checkpoint.load import EXPORTED_WEIGHTS, read_exported_weights, read_weights, use_checkpoint

FORMAT = "sgloc-model"
VERSION = 1
CONFIG, CARD = "config.json", "README.md"


@dataclass(frozen=True)
class About:
    """The content of config.json: a model, its training data and its training.

    Attributes:
        model: the model's options, including its kind.
        scale: scale of the training data set (METHOD 1).
        longest_points: number of points of that data set's longest drawing.
        data: the training drawings: SHA-256 of their manifest, number of drawings and of categories, licence; and the
            option `data.origin`.
        training: number of steps, global batch, best validation loss so far and its step, and all other options.
        versions: versions of the software used in training.
        format: always "sgloc-model".
        version: version of the format.
    """

    model: dict[str, Any]
    scale: float
    longest_points: int
    data: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]
    format: str = FORMAT
    version: int = VERSION

    @property
    def num_categories(self) -> int:
        """Number of categories of the drawings; 0 if unknown."""
        return self.data.get("categories") or 0


def read_checkpoint_model(path: str) -> tuple[str, About, dict[str, Tensor]]:
    """Read the model of a checkpoint; checkpoints skipped as damaged are logged.

    Args:
        path: folder or URL of a checkpoint, or of a run, whose best checkpoint is read.

    Returns:
        The checkpoint's folder, the description of the model, and its weights and buffers by name.

    Raises:
        CheckpointError: if `path` holds no intact checkpoint.
    """

    def read(folder: str) -> tuple[About, dict[str, Tensor]]:
        manifest = read_manifest(folder)
        return _about(manifest, folder), read_weights(folder, manifest)

    folder, (about, weights) = use_checkpoint(path, read)
    return folder, about, weights


def _about(manifest: CheckpointManifest, folder: str) -> About:
    config, best_loss = manifest.config, manifest.state.get("best_loss")
    model, data = config.get("model"), config.get("data")
    if not isinstance(model, dict) or not isinstance(data, dict):
        raise CheckpointError(f"{folder} holds another model: its configuration has no sections model and data")
    return About(
        model={**model, "kind": recorded_kind(config)},
        scale=manifest.scale,
        longest_points=manifest.longest_points,
        data={
            "identity": manifest.data_identity,
            "drawings": manifest.num_drawings,
            "categories": manifest.num_categories,
            "licence": manifest.licence,
            # A checkpoint older than this option is exported without it; loading then applies the former behaviour.
            **({"origin": data["origin"]} if "origin" in data else {}),
        },
        training={
            "steps": manifest.step,
            "global_batch": manifest.global_batch,
            # Old checkpoints store infinity until the first validation.
            "best_validation_loss": best_loss if best_loss is not None and math.isfinite(best_loss) else None,
            "best_step": manifest.state.get("best_step"),
            "options": mask_all({name: section for name, section in config.items() if name != "model"}),
        },
        versions=manifest.versions,
    )


def export_model(path: str, folder: str) -> tuple[str, int]:
    """Export a checkpoint's model to a folder for `sgloc.load_pretrained` or other programs.

    Args:
        path: see `read_checkpoint_model`.
        folder: folder or URL to write to; files of the same names are replaced.

    Returns:
        The checkpoint's folder and the number of values in the model's tensors.

    Raises:
        CheckpointError: if `path` holds no intact checkpoint.
        DataError: if the folder cannot be written.
    """
    found, about, weights = read_checkpoint_model(path)
    return found, write_export(folder, about, weights, about.training["options"]["data"].get("disturb", 0.0))


def write_export(
    folder: str, about: About, tensors: dict[str, Tensor], disturb: float | None, imported_from: str = ""
) -> int:
    """Write the files of an exported model and return the number of values in its tensors.

    Args:
        folder: folder or URL to write to; files of the same names are replaced.
        about: content of config.json.
        tensors: the model's weights and buffers.
        disturb: r of METHOD 3 in training; None if unknown.
        imported_from: the original program's checkpoint that the model was imported from; empty if it was trained here.

    Raises:
        DataError: if the folder cannot be written.
    """
    num_values = sum(tensor.numel() for tensor in tensors.values())
    values = {**vars(about), "num_values": num_values, "disturb": disturb, "imported_from": imported_from}
    files = {
        EXPORTED_WEIGHTS: safetensors.torch.save(tensors, {"format": "pt"}),
        CONFIG: (to_json(dataclasses.asdict(about), indent=1) + "\n").encode(),
        CARD: fill("hub/card.md", **values).encode(),
    }
    Storage(folder).save(files)
    return num_values


def is_export(path: str) -> bool:
    """Return whether `path` is the folder or URL of an exported model."""
    return Storage(path).exists(EXPORTED_WEIGHTS)


def read_export(folder: str) -> tuple[About, dict[str, Tensor]]:
    """Read a model written by `export_model`.

    Returns:
        The description of the model, and its weights and buffers by name.

    Raises:
        CheckpointError: if the folder is not an exported model, or is damaged.
    """
    storage = Storage(folder)
    with storage.reading(CONFIG):
        text = storage.content(CONFIG)
    try:
        fields = json.loads(text)
        if fields.get("format") != FORMAT or fields.get("version") != VERSION:
            raise CheckpointError(
                f"{folder}/{CONFIG} does not describe an exported model of version {VERSION}, which this program reads"
            )
        about = About(**fields)
        if not (isinstance(about.model, dict) and 0 < about.scale < math.inf and type(about.longest_points) is int):
            raise ValueError("model, scale or longest_points has an invalid value")
    except CheckpointError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder}/{CONFIG} is damaged ({error}); export the model again") from error
    return about, read_exported_weights(folder)
