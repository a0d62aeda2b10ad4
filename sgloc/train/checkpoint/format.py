"""manifest.json of a checkpoint: what it holds, and of which files.

A run's folder holds checkpoints/step-XXXXXXXX/, each with safetensors files that the ranks wrote and a manifest.json,
written last. A folder whose name ends in .tmp, or without a manifest, is not a checkpoint.
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
# Version 2 has a hash of the options besides, and Infinity where null stands now.
_READABLE = (2, 3)
FILE_NAME = "manifest.json"
FOLDER = "checkpoints"
# By their names in safetensors files.
# fmt: off
DTYPES: Mapping[str, torch.dtype] = MappingProxyType({
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
})
# fmt: on
# Of a checkpoint's folder; while it is being written, with the ending.
NAME = re.compile(r"step-(\d{8,})(\.tmp)?")
_MOST_VALUES = 2**60
_DTYPE_NAMES = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor stands.

    Attributes:
        dtype: its type, as safetensors files spell it.
        shape: its sizes.
        file: the file that holds it.
    """

    dtype: str
    shape: list[int]
    file: str

    @classmethod
    def of(cls, tensor: Tensor, file: str) -> "TensorEntry":
        """The entry of a tensor, which may have no values."""
        return cls(_DTYPE_NAMES[tensor.dtype], list(tensor.shape), file)

    @property
    def num_bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class CheckpointManifest:
    """manifest.json of a checkpoint.

    Attributes:
        step: optimizer steps done.
        saved_at: when it was saved, in UTC, as ISO 8601 has it.
        engine: that trained, for people.
        world_size: processes that wrote it.
        global_batch: sketches in a step.
        config: the run's whole configuration.
        data_identity: SHA-256 of the shards' manifest.
        licence: of the drawings.
        num_categories: in the shards.
        num_drawings: for training, in the shards.
        scale: of the data set (METHOD 1).
        longest_points: points of its longest drawing.
        state: the training state besides tensors.
        versions: of the programs that wrote it, and the git revision.
        tensors: where each tensor stands, by name.
        files: size in bytes and SHA-256 of each file.
        format: always "sgloc-checkpoint".
        version: of the format.
    """

    # A field that is none of these is refused.
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
        """Bytes of all its files but the manifest."""
        return sum(size for size, _ in self.files.values())

    def to_json(self) -> str:
        """The file's text, with a SHA-256 of itself."""
        fields = finite(dataclasses.asdict(self))
        return to_json({"sha256": _digest(fields), **fields}, indent=1) + "\n"

    def entries_of(self, file: str) -> dict[str, TensorEntry]:
        """The tensors in a file, in the order in which they stand there: aligned to their types, then by name."""
        names = [name for name, entry in self.tensors.items() if entry.file == file]
        names.sort(key=lambda name: (-DTYPES[self.tensors[name].dtype].itemsize, name))
        return {name: self.tensors[name] for name in names}


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def step_name(step: int) -> str:
    """Name of the checkpoint of a step."""
    return f"step-{step:08d}"


def step_folder(run_dir: str, step: int) -> str:
    """Where the checkpoint of a step stands."""
    return f"{run_dir.rstrip('/')}/{FOLDER}/{step_name(step)}"


def read_manifest(folder: str) -> CheckpointManifest:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointError: if it is not there, not of a checkpoint, of another format version, or cannot be reached.
        DamagedCheckpointError: if it is damaged.
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
            f"{folder} is not a checkpoint of this program; give a run's folder or one of its {FOLDER}/step-*"
        )
    sha256, version = fields.pop("sha256", None), fields.get("version")
    # Version 1 had no checksum.
    if sha256 != _digest(fields) and (sha256 or version != 1):
        raise DamagedCheckpointError(f"{path} is damaged: its SHA-256 is {_digest(fields)}, not {sha256}")
    if version not in _READABLE:
        raise CheckpointError(
            f"{folder} is of checkpoint version {version}, this program reads version {VERSION}: finish that run with "
            "the revision of this program that its versions.json names, or start anew in another --train.run"
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
    """Raise ValueError unless files and tensors fit together."""
    for name in manifest.files:
        if "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"it names {name!r}, which is not a file of its folder")
    for name, entry in manifest.tensors.items():
        # Beyond that, torch cannot count, although there may be no values.
        num_values = math.prod(size or 1 for size in entry.shape)
        if entry.dtype not in DTYPES or min(entry.shape, default=0) < 0 or num_values >= _MOST_VALUES:
            raise ValueError(f"tensor {name} is {entry.dtype!r:.20} {entry.shape!r:.50}")
        if entry.file not in manifest.files:
            raise ValueError(f"tensor {name} is in {entry.file!r:.50}, which is not a file of the checkpoint")
