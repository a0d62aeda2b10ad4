"""A trained model as people pass it on: model.safetensors, config.json, and README.md, which says what it is."""

import dataclasses
import json
import logging
import math
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from sgloc.errors import CheckpointError, DataError
from sgloc.masking import mask_all
from sgloc.storage import Storage, describe, patiently
from sgloc.strict_json import to_json
from sgloc.train.checkpoint import CheckpointManifest, read_manifest, read_tensors, use_checkpoint

logger = logging.getLogger(__name__)

FORMAT = "sgloc-model"
VERSION = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_PREFIX = "model."


@dataclass(frozen=True)
class About:
    """config.json: what a model is, and what became of it.

    Attributes:
        model: its sizes, as `ModelConfig` has them.
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


def _about(manifest: CheckpointManifest) -> About:
    best_loss = manifest.state.get("best_loss")
    return About(
        model=manifest.config["model"],
        scale=manifest.scale,
        longest_points=manifest.longest_points,
        data={
            "identity": manifest.data_identity,
            "drawings": manifest.num_drawings,
            "categories": manifest.num_categories,
            "licence": manifest.licence,
            # Where a checkpoint is older than the choice, so is what is exported of it.
            **({"origin": manifest.config["data"]["origin"]} if "origin" in manifest.config["data"] else {}),
        },
        training={
            "steps": manifest.step,
            "global_batch": manifest.global_batch,
            # Old checkpoints have an infinity before the first validation.
            "best_validation_loss": best_loss if best_loss is not None and math.isfinite(best_loss) else None,
            "best_step": manifest.state.get("best_step"),
            "options": mask_all({name: section for name, section in manifest.config.items() if name != "model"}),
        },
        versions=manifest.versions,
    )


def _card(about: About, num_values: int) -> str:
    """The text of README.md."""
    model, data, training = about.model, about.data, about.training
    disturb = training["options"]["data"]["disturb"]
    task = f"reorganization, strokes moved by up to {disturb} sketch sizes" if disturb else "synthesis"
    num_drawings = f"{data['drawings']:,} drawings of {data['categories']:,} categories"
    loss = training["best_validation_loss"]
    if loss is None:
        validation = "It was not validated up to this step."
    elif training["best_step"] == training["steps"]:
        validation = f"Its loss on the validation drawings is {loss:.4f}, the lowest up to this step."
    else:
        validation = (
            f"The lowest validation loss up to this step was {loss:.4f}, at step {training['best_step']}: "
            "these are not the weights of that step."
        )
    cells = f"{model['encoder']['cell']} encoder of {model['encoder']['hidden_size']}, "
    cells += f"{model['decoder']['cell']} decoder of {model['decoder']['hidden_size']}"
    return f"""# SketchGloc

A model of the spatial layout of free-hand sketches: {cells}, codes of {model["latent_size"]}.
model.safetensors holds {num_values:,} numbers: weights, and batch norm's statistics.
It was trained for {task}.

## Training

{training["steps"]:,} steps of {training["global_batch"]} drawings, out of {num_drawings}.
{validation}

- Licence of the drawings: {data["licence"] or "not told"}
- SHA-256 of the drawings' manifest: `{data["identity"]}`
- Versions: {", ".join(f"{name} {version}" for name, version in about.versions.items())}

All options are in config.json.

## Use

```python
from sgloc import load_pretrained

model = load_pretrained("path/of/this/folder")
```

or, to redraw the sketches of a folder of shards:

```
sgloc generate --checkpoint path/of/this/folder --data shards/mine --out drawn
```
"""


def export_model(path: str, folder: str) -> tuple[str, int]:
    """Write a checkpoint's model as a folder that `sgloc.load_pretrained` reads, and other programs can.

    Args:
        path: folder or URL of a checkpoint; or of a run, of which the best checkpoint is taken.
        folder: folder or URL to write to; what is there under the same names is replaced.

    Returns:
        The checkpoint's folder, and how many numbers its model is.

    Raises:
        CheckpointError: if there is no whole checkpoint there.
        DataError: if the folder cannot be written.
    """

    def read(checkpoint: str) -> tuple[CheckpointManifest, dict[str, Tensor]]:
        manifest = read_manifest(checkpoint)
        tensors = read_tensors(checkpoint, manifest)
        return manifest, {name.removeprefix(_PREFIX): one for name, one in tensors if name.startswith(_PREFIX)}

    found, (manifest, tensors) = use_checkpoint(path, read, logger.warning)
    try:
        about = _about(manifest)
        num_values = sum(tensor.numel() for tensor in tensors.values())
        card = _card(about, num_values)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{found} does not say what model it is of ({error!r})") from error
    write_export(folder, about, tensors, card)
    return found, num_values


def write_export(folder: str, about: About, tensors: dict[str, Tensor], card: str) -> None:
    """Write the files of a model.

    Args:
        folder: folder or URL to write to; what is there under the same names is replaced.
        about: for config.json.
        tensors: the model's.
        card: the text of README.md.

    Raises:
        DataError: if the folder cannot be written.
    """
    files = {
        WEIGHTS: safetensors.torch.save(tensors, {"format": "pt"}),
        CONFIG: (to_json(dataclasses.asdict(about), indent=1) + "\n").encode(),
        CARD: card.encode(),
    }
    storage = Storage(folder)
    try:
        storage.make_folder("")
        for name, content in files.items():
            patiently(lambda name=name, content=content: storage.write(name, [content]))  # type: ignore[misc]
    except Exception as error:  # A store's library may raise anything.
        raise DataError(f"cannot write to {folder} ({describe(error)}); give an --out that can be written") from error


def is_export(path: str) -> bool:
    """Whether a path is that of an exported model."""
    return Storage(path).exists(WEIGHTS)


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
    with storage.reading(WEIGHTS):
        weights = storage.content(WEIGHTS)
    try:
        return about, safetensors.torch.load(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}/{WEIGHTS} is damaged ({error}); export the model again") from error
