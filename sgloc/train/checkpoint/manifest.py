"""What a checkpoint holds, whether it is whole, and which of a run's to take.

A run's folder holds checkpoints/step-XXXXXXXX/, each with the files that torch.distributed.checkpoint wrote and a
manifest.json, written last, with the
size and SHA-256 of every one of them. A folder whose name ends in .tmp, or without a manifest, is not a checkpoint.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

import fsspec.core

from sgloc.errors import CheckpointError

FORMAT = "sgloc-checkpoint"
VERSION = 1
FILE_NAME = "manifest.json"
FOLDER = "checkpoints"
_STEP = re.compile(r"step-(\d{8,})")
_CHUNK = 2**24


@dataclass(frozen=True)
class CheckpointManifest:
    """manifest.json of a checkpoint.

    Attributes:
        step: optimizer steps done.
        world_size: processes that wrote it.
        global_batch: sketches in a step.
        config: the run's whole configuration.
        config_hash: SHA-256 of the options that make the run what it is.
        data_identity: SHA-256 of the shards' manifest.
        scale: of the data set (METHOD 1).
        longest_points: points of its longest drawing.
        state: the training state besides tensors.
        versions: of the programs that wrote it, and the git revision.
        files: size in bytes and SHA-256 of each file.
    """

    step: int
    world_size: int
    global_batch: int
    config: dict[str, Any]
    config_hash: str
    data_identity: str
    scale: float
    longest_points: int
    state: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, tuple[int, str]]
    format: str = FORMAT
    version: int = VERSION

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def step_folder(run_dir: str, step: int) -> str:
    """Where the checkpoint of a step stands."""
    return f"{run_dir.rstrip('/')}/{FOLDER}/step-{step:08d}"


def file_digest(file_system: Any, path: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file."""
    sha256, size = hashlib.sha256(), 0
    with file_system.open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
    return size, sha256.hexdigest()


def read_checkpoint(folder: str, *, verify: bool = True) -> CheckpointManifest:
    """Read a checkpoint's manifest and, unless told otherwise, check every file against it.

    Raises:
        CheckpointError: if it is not there, not a checkpoint, of another format version, or damaged; it names the file.
    """
    file_system, root = fsspec.core.url_to_fs(folder)
    path = f"{root}/{FILE_NAME}"
    try:
        fields = json.loads(file_system.cat_file(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a complete checkpoint: it has no {FILE_NAME}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} is not a checkpoint of this program; give a run's folder or one of its {FOLDER}/step-*"
        )
    if fields.get("version") != VERSION:
        raise CheckpointError(
            f"{folder} is of checkpoint version {fields.get('version')}, this program reads version {VERSION}"
        )
    try:
        fields["files"] = {name: (int(size), str(sha256)) for name, (size, sha256) in fields["files"].items()}
        manifest = CheckpointManifest(**fields)
        _check_types(manifest)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is malformed ({error})") from error
    if verify:
        _verify(file_system, root, manifest)
    return manifest


def _check_types(manifest: CheckpointManifest) -> None:
    """Raise TypeError if a field holds what it cannot: the manifest has no checksum of its own."""
    for name, hint in get_type_hints(CheckpointManifest).items():
        value, expected = getattr(manifest, name), get_origin(hint) or hint
        # JSON may spell a whole number for a float.
        if not isinstance(value, (int, float) if expected is float else expected) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r:.50}")


def _verify(file_system: Any, root: str, manifest: CheckpointManifest) -> None:
    for name, expected in manifest.files.items():
        if "/" in name or name.startswith(".."):
            raise CheckpointError(f"the manifest of {root} names {name!r}, which is not a file of its folder")
        try:
            found = file_digest(file_system, f"{root}/{name}")
        except OSError as error:
            raise CheckpointError(f"{root}/{name} is missing or cannot be read ({error})") from error
        if found != expected:
            raise CheckpointError(
                f"{root}/{name} is damaged: {found[0]} bytes with SHA-256 {found[1]}, "
                f"not {expected[0]} bytes with {expected[1]}"
            )


def checkpoint_steps(run_dir: str) -> list[int]:
    """Steps of the run's checkpoints that have a manifest, newest first; nothing else counts."""
    file_system, root = fsspec.core.url_to_fs(f"{run_dir.rstrip('/')}/{FOLDER}")
    if not file_system.exists(root):
        return []
    names = (path.rstrip("/").rsplit("/", 1)[-1] for path in file_system.ls(root, detail=False))
    steps = (int(match.group(1)) for name in names if (match := _STEP.fullmatch(name)))
    return sorted((step for step in steps if file_system.exists(f"{root}/step-{step:08d}/{FILE_NAME}")), reverse=True)


def newest_checkpoint(run_dir: str, say: Callable[[str], None]) -> str | None:
    """The folder of the newest checkpoint that verifies; None if there is none. Each that is skipped is told through
    `say`."""
    return _first_good((step_folder(run_dir, step) for step in checkpoint_steps(run_dir)), say)


def find_checkpoint(path: str, say: Callable[[str], None]) -> str:
    """The checkpoint that a path means: itself; or, of a run's folder, the one with the best validation loss, else the
    newest.

    Raises:
        CheckpointError: if there is none that verifies.
    """
    file_system, root = fsspec.core.url_to_fs(path)
    if not file_system.exists(root):
        raise CheckpointError(f"{path} does not exist; give a run's folder or one of its {FOLDER}/step-*")
    if file_system.exists(f"{root}/{FILE_NAME}"):
        read_checkpoint(path)
        return path
    steps = checkpoint_steps(path)
    if not steps:
        raise CheckpointError(f"{path} holds no complete checkpoint; give a run's folder or one of its {FOLDER}/step-*")
    newest = newest_checkpoint(path, say)
    best_step = read_checkpoint(newest, verify=False).state.get("best_step") if newest else None
    candidates = [step_folder(path, best_step)] if best_step in steps else []
    good = _first_good(candidates, say) or newest
    if good is None:
        raise CheckpointError(f"no checkpoint in {path} is whole; all {len(steps)} are damaged")
    return good


def _first_good(folders: Iterable[str], say: Callable[[str], None]) -> str | None:
    for folder in folders:
        try:
            read_checkpoint(folder)
        except CheckpointError as error:
            say(f"skipping checkpoint {folder}: {error}")
        else:
            return folder
    return None
