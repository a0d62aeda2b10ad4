"""A trained model as people pass it on: model.safetensors, config.json, and README.md, which says what it is."""

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
    """config.json: what a model is, and what became of it.

    Attributes:
        model: its options, with its kind.
        scale: of the data set (METHOD 1).
        longest_points: points of the longest drawing there.
        data: the drawings that it was trained on: the SHA-256 of their manifest, their number, their categories' and
            their licence; and `data.origin`.
        training: steps, sketches in a step, the best validation loss up to there and its step, and all options.
        versions: of the programs that trained it.
        format: always "sgloc-model".
        version: of the format.
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
        """Categories of the drawings; 0 where nobody knows."""
        return self.data.get("categories") or 0


def read_checkpoint_model(path: str) -> tuple[str, About, dict[str, Tensor]]:
    """The model of a checkpoint; skipped checkpoints are logged.

    Args:
        path: folder or URL of a checkpoint; or of a run, of which the best checkpoint is taken.

    Returns:
        The checkpoint's folder, what the model is, and its weights and buffers by name.

    Raises:
        CheckpointError: if there is no whole checkpoint there.
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
        raise CheckpointError(f"{folder} is of another model: its configuration has no options of model and data")
    return About(
        model={**model, "kind": recorded_kind(config)},
        scale=manifest.scale,
        longest_points=manifest.longest_points,
        data={
            "identity": manifest.data_identity,
            "drawings": manifest.num_drawings,
            "categories": manifest.num_categories,
            "licence": manifest.licence,
            # Where a checkpoint is older than the choice, so is what is exported of it.
            **({"origin": data["origin"]} if "origin" in data else {}),
        },
        training={
            "steps": manifest.step,
            "global_batch": manifest.global_batch,
            # Old checkpoints have an infinity before the first validation.
            "best_validation_loss": best_loss if best_loss is not None and math.isfinite(best_loss) else None,
            "best_step": manifest.state.get("best_step"),
            "options": mask_all({name: section for name, section in config.items() if name != "model"}),
        },
        versions=manifest.versions,
    )


def export_model(path: str, folder: str) -> tuple[str, int]:
    """Write a checkpoint's model as a folder that `sgloc.load_pretrained` reads, and other programs can.

    Args:
        path: see `read_checkpoint_model`.
        folder: folder or URL to write to; what is there under the same names is replaced.

    Returns:
        The checkpoint's folder, and how many numbers its model is.

    Raises:
        CheckpointError: if there is no whole checkpoint there.
        DataError: if the folder cannot be written.
    """
    found, about, weights = read_checkpoint_model(path)
    return found, write_export(folder, about, weights, about.training["options"]["data"].get("disturb", 0.0))


def write_export(
    folder: str, about: About, tensors: dict[str, Tensor], disturb: float | None, imported_from: str = ""
) -> int:
    """Write the files of a model, and count its numbers.

    Args:
        folder: folder or URL to write to; what is there under the same names is replaced.
        about: for config.json.
        tensors: the model's.
        disturb: r of METHOD 3 in its training; None where nobody knows.
        imported_from: the checkpoint of the original program that it comes from; empty: it is our own.

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
    """Whether a path is that of an exported model."""
    return Storage(path).exists(EXPORTED_WEIGHTS)


def read_export(folder: str) -> tuple[About, dict[str, Tensor]]:
    """What `export_model` wrote.

    Raises:
        CheckpointError: if it is not that, or damaged.
    """
    storage = Storage(folder)
    with storage.reading(CONFIG):
        text = storage.content(CONFIG)
    try:
        fields = json.loads(text)
        if fields.get("format") != FORMAT or fields.get("version") != VERSION:
            raise CheckpointError(
                f"{folder}/{CONFIG} is not of an exported model of version {VERSION} that this program reads"
            )
        about = About(**fields)
        if not (isinstance(about.model, dict) and 0 < about.scale < math.inf and type(about.longest_points) is int):
            raise ValueError("model, scale or longest_points is not what it must be")
    except CheckpointError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder}/{CONFIG} is damaged ({error}); export the model again") from error
    return about, read_exported_weights(folder)
