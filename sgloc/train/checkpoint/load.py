"""Selecting, verifying and reading checkpoints (DESIGN contracts 4 and 7).

The newest checkpoint that verifies is used, and skipped ones are logged. Every file is read once, as plain numbers;
nothing in it is unpickled or executed.
"""

import logging
import math
import os.path
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sgloc.dist import Group
from sgloc.errors import CheckpointError, DamagedCheckpointError
from sgloc.storage import Storage
from sgloc.terminal import progress
from sgloc.train.checkpoint.format import (
    DTYPES,
    FILE_NAME,
    FOLDER,
    NAME,
    CheckpointManifest,
    TensorEntry,
    read_manifest,
    step_folder,
    step_name,
)
from sgloc.train.checkpoint.safetensors_io import read_file

logger = logging.getLogger(__name__)

# The weights of an exported model; its configuration is in the same folder.
EXPORTED_WEIGHTS = "model.safetensors"
# Maximum number of tensors named in an error message.
_MOST_NAMED = 3

Value = TypeVar("Value")


def complete_steps(storage: Storage) -> list[int]:
    """Return the steps of the checkpoints in a `checkpoints` folder that have a manifest, newest first."""
    matches = map(NAME.fullmatch, storage.sizes(""))
    steps = sorted((int(match[1]) for match in matches if match and not match[2]), reverse=True)
    return [step for step in steps if storage.exists(f"{step_name(step)}/{FILE_NAME}")]


def checkpoint_steps(run_dir: str) -> list[int]:
    """Return the steps of a run's checkpoints, newest first."""
    return complete_steps(Storage(f"{run_dir.rstrip('/')}/{FOLDER}"))


def checkpoint_folders(run_dir: str) -> list[str]:
    """Return the folders of a run's checkpoints, newest first."""
    return [step_folder(run_dir, step) for step in checkpoint_steps(run_dir)]


def is_checkpoint(path: str) -> bool:
    """Return whether a path is a checkpoint, as opposed to a run folder."""
    return Storage(path).exists(FILE_NAME)


def run_around(path: str) -> str | None:
    """Return the run folder that contains a checkpoint or a `checkpoints` folder; None if the path is neither.

    Decides by the contents of the folders, since a run folder may itself be named `checkpoints` or `step-00000001`.
    """
    if is_checkpoint(path):
        up = "../.."
    elif complete_steps(Storage(path)):
        up = ".."
    else:
        return None
    protocol, separator, folder = path.rpartition("://")
    run_dir = protocol + separator + os.path.normpath(f"{folder}/{up}")
    return run_dir if checkpoint_steps(run_dir) else None


def no_checkpoint(path: str) -> CheckpointError:
    """Return the error for a path that is neither a checkpoint nor a run with checkpoints."""
    run_dir = run_around(path)
    if run_dir is not None:
        return CheckpointError(f"{path} is not a run folder; pass {run_dir}, or one of its {FOLDER}/step-*")
    what = "holds no complete checkpoint" if Storage(path).exists() else "does not exist"
    return CheckpointError(f"{path} {what}; pass a run folder or one of its {FOLDER}/step-*")


def first_whole(
    folders: Iterable[str], use: Callable[[str], Value], level: int = logging.WARNING
) -> tuple[str, Value] | None:
    """Apply a function to the first intact checkpoint.

    Args:
        folders: folders of the checkpoints, in the order to try.
        use: function of a checkpoint's folder; raises DamagedCheckpointError if the checkpoint is not intact.
        level: logging level for skipped checkpoints.

    Returns:
        The folder and the function's result; None if no checkpoint is intact.
    """
    for folder in folders:
        try:
            return folder, use(folder)
        except DamagedCheckpointError as error:
            logger.log(level, "skipping checkpoint %s: %s", folder, error)
    return None


def newest_checkpoint(run_dir: str, level: int = logging.WARNING) -> str | None:
    """Return the folder of the newest checkpoint that verifies, or None; log skipped ones at `level`."""
    found = first_whole(checkpoint_folders(run_dir), read_checkpoint, level)
    return found[0] if found else None


def use_checkpoint(path: str, use: Callable[[str], Value]) -> tuple[str, Value]:
    """Apply a function to the checkpoint at a path, or to a run's best one.

    The best checkpoint has the lowest validation loss; if it is missing or damaged, the newest intact one is used.

    Args:
        path: folder or URL of a checkpoint or a run.
        use: see `first_whole`.

    Returns:
        The checkpoint's folder and the function's result.

    Raises:
        CheckpointError: if there is no intact checkpoint.
    """
    if is_checkpoint(path):
        return path, use(path)
    folders = checkpoint_folders(path)
    if not folders:
        raise no_checkpoint(path)
    ordered, lost = _best_first(path, folders)
    if lost is not None:
        logger.warning("%s; using %s instead", lost, ordered[0])
    found = first_whole(ordered, use)
    if found is None:
        raise CheckpointError(f"no checkpoint in {path} is intact; all {len(folders)} are damaged")
    return found


def missing_best(run_dir: str, step: int | None, loss: float | None) -> str:
    """Return the message about a best checkpoint that the training state names but that does not exist."""
    said = f" (validation loss {loss:.4f})" if isinstance(loss, float) else ""
    return f"the best checkpoint of {run_dir}, of step {step}{said}, is missing: it was never written, or was removed"


def lost_best(run_dir: str) -> str | None:
    """Return the message about a run's missing best checkpoint; None if it exists or nothing was validated yet."""
    return _best_first(run_dir, checkpoint_folders(run_dir))[1]


def _best_first(run_dir: str, folders: list[str]) -> tuple[list[str], str | None]:
    """Return a run's checkpoints, the best one first and the others from newest to oldest, and `lost_best`."""
    # The newest readable manifest has the latest training state, which names the best step of the whole run.
    newest = first_whole(folders, read_manifest, logging.DEBUG)
    state = newest[1].state if newest else {}
    steps = [state.get(name) for name in ("best_step", "saved_best_step")]
    best, saved = (step_folder(run_dir, step) if isinstance(step, int) else None for step in steps)
    front = [folder for folder in (best, saved) if folder in folders][:1]
    is_lost = best is not None and best not in folders
    lost = missing_best(run_dir, steps[0], state.get("best_loss")) if is_lost else None
    return front + [folder for folder in folders if folder not in front], lost


def read_tensors(folder: str, manifest: CheckpointManifest) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a checkpoint; it is verified only once the iterator is exhausted without an error.

    Raises:
        CheckpointError: if a file is unreachable.
        DamagedCheckpointError: if a file does not match the manifest; names the file.
    """
    storage = Storage(folder)
    for file in sorted(manifest.files):
        yield from read_file(storage, file, manifest)


def read_checkpoint(folder: str) -> CheckpointManifest:
    """Read a checkpoint's manifest, and verify every file against it.

    Raises:
        CheckpointError: if the checkpoint has another format version or is unreachable.
        DamagedCheckpointError: if it is missing or not intact; names the file.
    """
    manifest = read_manifest(folder)
    for _ in read_tensors(folder, manifest):
        pass
    return manifest


def refuse_other_tensors(
    where: str, theirs: Mapping[str, Tensor | TensorEntry], ours: Mapping[str, Tensor], *, exactly: bool = True
) -> None:
    """Refuse tensors that do not match a model's in name, dtype and shape.

    Args:
        where: path that the tensors were read from.
        theirs: the tensors by name, or their entries in a manifest.
        ours: the model's tensors by name.
        exactly: whether to refuse additional tensors too.

    Raises:
        CheckpointError: names some of the tensors that are missing, unexpected, or of another dtype or shape.
    """
    wrong = []
    for name in sorted({*ours, *(theirs if exactly else ())}):
        there, here = (_form(tensors[name]) if name in tensors else "missing" for tensors in (theirs, ours))
        if there != here:
            wrong.append(f"{name} is {there} there and {here} here")
    if wrong:
        more = f"; and {len(wrong) - _MOST_NAMED} more tensors" if len(wrong) > _MOST_NAMED else ""
        raise CheckpointError(
            f"{where} belongs to another model: {'; '.join(wrong[:_MOST_NAMED])}{more}; set the model options that it "
            "was trained with"
        )


def _form(tensor: Tensor | TensorEntry) -> str:
    dtype = DTYPES[tensor.dtype] if isinstance(tensor, TensorEntry) else tensor.dtype
    return f"{str(dtype).removeprefix('torch.')} {list(tensor.shape)}"


def read_weights(folder: str, manifest: CheckpointManifest) -> dict[str, Tensor]:
    """Return a model's weights and buffers by name; reads and verifies the complete checkpoint.

    Raises:
        CheckpointError: see `read_tensors`.
    """
    prefix = "model."
    tensors = read_tensors(folder, manifest)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors if name.startswith(prefix)}


def read_exported_weights(folder: str) -> dict[str, Tensor]:
    """Return the weights and buffers of an exported model by name.

    Raises:
        CheckpointError: if they cannot be read.
    """
    storage = Storage(folder)
    with storage.reading(EXPORTED_WEIGHTS):
        content = storage.content(EXPORTED_WEIGHTS)
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}/{EXPORTED_WEIGHTS} is damaged ({error}); export the model again") from error


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load weights and buffers into a network.

    Raises:
        CheckpointError: if they do not match the network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        # Drop the first line, which names only the class; shorten the rest, which may list every tensor of the network.
        said = textwrap.shorten(" ".join(str(error).splitlines()[1:]), 300, placeholder=" ...")
        raise CheckpointError(f"{where} belongs to another model: {said}") from error


def spread_tensors(
    folder: str, manifest: CheckpointManifest, layout: Mapping[str, Tensor], group: Group
) -> Iterator[tuple[str, Tensor]]:
    """Yield a checkpoint's tensors on every rank; rank 0 reads and broadcasts them.

    Collective: all ranks must exhaust the iterator together.

    Args:
        folder: folder of the checkpoint.
        manifest: manifest of the checkpoint.
        layout: the tensors to yield, by name.
        group: group of the ranks, on host memory.

    Raises:
        CheckpointError: on every rank; see `refuse_other_tensors` and `read_tensors`.
    """
    group.on_rank_0(lambda: refuse_other_tensors(folder, manifest.tensors, layout, exactly=False))
    source = read_tensors(folder, manifest) if group.rank == 0 else iter(())
    for file in sorted(manifest.files):
        for name, entry in manifest.entries_of(file).items():
            values: list[Tensor] = []
            # Unwanted tensors are read as well, for the file's checksum.
            group.on_rank_0(lambda values=values: values.append(next(source)[1]))  # type: ignore[misc]
            if name in layout:
                tensor = values[0] if values else torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
                group.broadcast(tensor.reshape(-1).view(torch.uint8))
                yield name, tensor
    # Exhaust the reader, which verifies the last file's checksum at its end.
    group.on_rank_0(lambda: next(source, None))


@dataclass(frozen=True)
class Listed:
    """A checkpoint in a listing, intact or damaged.

    Attributes:
        folder: folder or URL of the checkpoint.
        manifest: its manifest; None if unreadable.
        problems: one message per problem; empty if the checkpoint is intact.
    """

    folder: str
    manifest: CheckpointManifest | None
    problems: list[str]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of this checkpoint in a table with `HEADINGS`."""
        said, manifest = ("",) * 5, self.manifest
        if manifest is not None:
            size = f"{manifest.num_bytes / 2**20:,.1f} MiB"
            said = (manifest.saved_at, size, str(manifest.world_size), manifest.engine, _validation(manifest))
        return (self.folder.rsplit("/", 1)[-1], *said, "no" if self.problems else "yes")


HEADINGS = ("checkpoint", "saved at", "size", "world size", "engine", "validation loss", "intact")


def _validation(manifest: CheckpointManifest) -> str:
    """Format the validation loss of a checkpoint that was the best so far, or else the best loss before it."""
    loss, step = manifest.state.get("best_loss"), manifest.state.get("best_step")
    if not isinstance(loss, float) or not math.isfinite(loss):
        return "none yet"
    return f"{loss:.4f}" if step == manifest.step else f"best so far {loss:.4f}, of step {step}"


def examine(folder: str) -> Listed:
    """Read every file of a checkpoint, and collect its problems."""
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return Listed(folder, None, [str(error)])
    storage, problems = Storage(folder), []
    for file in sorted(manifest.files):
        try:
            for _ in read_file(storage, file, manifest):
                pass
        except CheckpointError as error:
            problems.append(str(error))
    return Listed(folder, manifest, problems)


def list_checkpoints(path: str) -> list[Listed]:
    """Examine the checkpoint at a path, or all checkpoints of a run, newest first.

    Raises:
        CheckpointError: if there is no checkpoint.
    """
    folders = [path] if is_checkpoint(path) else checkpoint_folders(path)
    if not folders:
        raise no_checkpoint(path)
    found = list[Listed]()
    with progress("checkpoints", len(folders)) as advance:
        for folder in folders:
            found.append(examine(folder))
            advance(len(found))
    return found
