"""A checkpoint's manifest.json: its contents and its files.

A run folder contains checkpoints/step-XXXXXXXX/, each with the safetensors files written by the ranks and a
manifest.json, written last. A folder without a manifest, or whose name ends in .tmp, is not a checkpoint.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from sgloc.errors import CheckpointError, DamagedCheckpointError
from sgloc.renamed import with_new_names
from sgloc.storage import Storage
from sgloc.strict_json import finite, from_json, to_json

FORMAT = "sgloc-checkpoint"
VERSION = 3
# Version 2 additionally has a hash of the options, and writes Infinity instead of null.
_READABLE = (2, 3)
FILE_NAME = "manifest.json"
FOLDER = "checkpoints"
# Keys are the names that safetensors files use.
# fmt: off
DTYPES: Mapping[str, torch.dtype] = MappingProxyType({
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
})
# fmt: on
# Name of a checkpoint's folder; it ends in .tmp while being written.
NAME = re.compile(r"step-(\d{8,})(\.tmp)?")
_MOST_VALUES = 2**60
_DTYPE_NAMES = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})


@dataclass(frozen=True)
class TensorEntry:
    """The type, shape and file of a tensor.

    Attributes:
        dtype: dtype as named in safetensors files.
        shape: size of each dimension.
        file: name of the file that contains the tensor.
    """

    dtype: str
    shape: list[int]
    file: str

    @classmethod
    def of(cls, tensor: Tensor, file: str) -> "TensorEntry":
        """Return the entry of a tensor, which may be on the meta device."""
        return cls(_DTYPE_NAMES[tensor.dtype], list(tensor.shape), file)

    @property
    def num_bytes(self) -> int:
        """Size of the tensor's values in bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class CheckpointManifest:
    """The content of a checkpoint's manifest.json.

    Attributes:
        step: number of steps done.
        saved_at: time of saving, UTC in ISO 8601.
        engine: display name of the training engine.
        world_size: number of processes that wrote the checkpoint.
        global_batch: number of sketches per step.
        config: the run's complete configuration.
        data_identity: SHA-256 of the shards' manifest.
        licence: licence of the drawings.
        num_categories: number of categories in the shards.
        num_drawings: number of training drawings in the shards.
        scale: scale of the data set (METHOD 1).
        longest_points: number of points in the data set's longest drawing.
        state: the training state apart from tensors.
        versions: versions of the software that wrote the checkpoint, and its git revision.
        tensors: type, shape and file of each tensor, by name.
        files: size in bytes and SHA-256 of each file, by name.
        format: always "sgloc-checkpoint".
        version: version of the format.
    """

    # Makes pydantic reject unknown fields.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    step: int
    saved_at: str
    engine: str
    world_size: int
    global_batch: int
    config: dict[str, Any]
    data_identity: str
    licence: str
    num_categories: int
    num_drawings: int
    scale: float
    longest_points: int
    state: dict[str, Any]
    versions: dict[str, str]
    tensors: dict[str, TensorEntry]
    files: dict[str, tuple[int, str]]
    format: str = FORMAT
    version: int = VERSION

    @property
    def num_bytes(self) -> int:
        """Total size in bytes of all files except the manifest."""
        return sum(size for size, _ in self.files.values())

    def to_json(self) -> str:
        """Return the text of the file, including a SHA-256 of its own fields."""
        fields = finite(dataclasses.asdict(self))
        return to_json({"sha256": _digest(fields), **fields}, indent=1) + "\n"

    def entries_of(self, file: str) -> dict[str, TensorEntry]:
        """Return the entries of a file's tensors in file order: wider dtypes first, for alignment; then by name."""
        names = [name for name, entry in self.tensors.items() if entry.file == file]
        names.sort(key=lambda name: (-DTYPES[self.tensors[name].dtype].itemsize, name))
        return {name: self.tensors[name] for name in names}


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def step_name(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def step_folder(run_dir: str, step: int) -> str:
    """Return the path or URL of a step's checkpoint."""
    return f"{run_dir.rstrip('/')}/{FOLDER}/{step_name(step)}"


def read_manifest(folder: str) -> CheckpointManifest:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointError: if it has another format version or is unreachable.
        DamagedCheckpointError: if it is missing, damaged, or not a checkpoint's.
    """
    storage = Storage(folder)
    path = f"{storage.location}/{FILE_NAME}"
    with storage.reading(FILE_NAME):
        try:
            content = storage.content(FILE_NAME)
        except FileNotFoundError as error:
            raise DamagedCheckpointError(f"{folder} is not a complete checkpoint: it has no {FILE_NAME}") from error
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path} cannot be read ({error})") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise DamagedCheckpointError(
            f"{folder} is not a checkpoint of this program; pass a run folder or one of its {FOLDER}/step-*"
        )
    sha256, version = fields.pop("sha256", None), fields.get("version")
    # Version 1 had no checksum.
    if sha256 != _digest(fields) and (sha256 or version != 1):
        raise DamagedCheckpointError(f"{path} is damaged: its SHA-256 is {_digest(fields)}, not {sha256}")
    if version not in _READABLE:
        raise CheckpointError(
            f"{folder} has checkpoint version {version}, but this program reads version {VERSION}; finish that run "
            "with the revision of this program that its versions.json names, or start from scratch in another run "
            "folder (train.run)"
        )
    try:
        fields.pop("config_hash", None)
        fields["config"] = with_new_names(fields["config"])
        manifest = from_json(json.dumps(fields).encode(), CheckpointManifest)
        _check(manifest)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path} is malformed ({error})") from error
    return manifest


def _check(manifest: CheckpointManifest) -> None:
    """Raise ValueError unless files and tensors are consistent."""
    for name in manifest.files:
        if "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"it lists {name!r}, which is not a file in its folder")
    for name, entry in manifest.tensors.items():
        # torch rejects larger shapes, even of tensors without elements.
        num_values = math.prod(size or 1 for size in entry.shape)
        if entry.dtype not in DTYPES or min(entry.shape, default=0) < 0 or num_values >= _MOST_VALUES:
            raise ValueError(f"tensor {name} is {entry.dtype!r:.20} {entry.shape!r:.50}")
        if entry.file not in manifest.files:
            raise ValueError(f"tensor {name} is in {entry.file!r:.50}, which the checkpoint does not list")
