"""Reading checkpoints: which of a run's to take, what is wrong with them, and their tensors (DESIGN contracts 4 and 7).

The newest checkpoint that verifies is taken; those that are skipped are named. Every file is read once, and never as
anything but numbers.
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

# The file of an exported model, beside which stands what the model is.
EXPORTED_WEIGHTS = "model.safetensors"
# Tensors that a message names.
_MOST_NAMED = 3

Value = TypeVar("Value")


def complete_steps(storage: Storage) -> list[int]:
    """Steps of the checkpoints in a folder of them that have a manifest, newest first; nothing else counts."""
    matches = map(NAME.fullmatch, storage.sizes(""))
    steps = sorted((int(match[1]) for match in matches if match and not match[2]), reverse=True)
    return [step for step in steps if storage.exists(f"{step_name(step)}/{FILE_NAME}")]


def checkpoint_steps(run_dir: str) -> list[int]:
    """Steps of a run's checkpoints, newest first."""
    return complete_steps(Storage(f"{run_dir.rstrip('/')}/{FOLDER}"))


def checkpoint_folders(run_dir: str) -> list[str]:
    """Folders of a run's checkpoints, newest first."""
    return [step_folder(run_dir, step) for step in checkpoint_steps(run_dir)]


def is_checkpoint(path: str) -> bool:
    """Whether a path is a checkpoint's, and not a run's."""
    return Storage(path).exists(FILE_NAME)


def run_around(path: str) -> str | None:
    """The folder of the run whose folder of checkpoints a path is, or one of them; None if it is neither.

    The name alone tells nothing: a run's own folder may be called so.
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
    """What to say of a path that is neither a checkpoint's nor that of a run that has any."""
    run_dir = run_around(path)
    if run_dir is not None:
        return CheckpointError(f"{path} is not a run's folder; give {run_dir}, or one of its {FOLDER}/step-*")
    what = "holds no complete checkpoint" if Storage(path).exists() else "does not exist"
    return CheckpointError(f"{path} {what}; give a run's folder or one of its {FOLDER}/step-*")


def first_whole(
    folders: Iterable[str], use: Callable[[str], Value], level: int = logging.WARNING
) -> tuple[str, Value] | None:
    """Use the first checkpoint that is whole.

    Args:
        folders: the checkpoints', in the order in which they are tried.
        use: is given a folder; raises DamagedCheckpointError where the checkpoint turns out not to be whole.
        level: at which skipped checkpoints are logged.

    Returns:
        Its folder and the result of using it; None if there is none.
    """
    for folder in folders:
        try:
            return folder, use(folder)
        except DamagedCheckpointError as error:
            logger.log(level, "skipping checkpoint %s: %s", folder, error)
    return None


def newest_checkpoint(run_dir: str, level: int = logging.WARNING) -> str | None:
    """The folder of the newest checkpoint that verifies; None if there is none. Skipped ones are logged at a level."""
    found = first_whole(checkpoint_folders(run_dir), read_checkpoint, level)
    return found[0] if found else None


def use_checkpoint(path: str, use: Callable[[str], Value]) -> tuple[str, Value]:
    """Use the checkpoint that a path means: itself; or, of a run's folder, the one with the best validation loss, else
    the newest.

    Args:
        path: of a checkpoint or a run.
        use: see `first_whole`.

    Returns:
        The checkpoint's folder and the result of using it.

    Raises:
        CheckpointError: if there is none that is whole.
    """
    if is_checkpoint(path):
        return path, use(path)
    folders = checkpoint_folders(path)
    if not folders:
        raise no_checkpoint(path)
    ordered, lost = _best_first(path, folders)
    if lost is not None:
        logger.warning("%s; %s is taken in its place", lost, ordered[0])
    found = first_whole(ordered, use)
    if found is None:
        raise CheckpointError(f"no checkpoint in {path} is whole; all {len(folders)} are damaged")
    return found


def missing_best(run_dir: str, step: int | None, loss: float | None) -> str:
    """The sentence about a best checkpoint that is named and not there."""
    said = f" (validation loss {loss:.4f})" if isinstance(loss, float) else ""
    return (
        f"the best checkpoint of {run_dir}, of step {step}{said}, is not there: it could not be written, or was removed"
    )


def lost_best(run_dir: str) -> str | None:
    """The sentence about a run's best checkpoint if it is not there; None if it is, or nothing was validated."""
    return _best_first(run_dir, checkpoint_folders(run_dir))[1]


def _best_first(run_dir: str, folders: list[str]) -> tuple[list[str], str | None]:
    """The checkpoints of a run, newest first, with the best one at the front; and `lost_best`."""
    # The training state in the newest manifest that can be read says what holds for all.
    newest = first_whole(folders, read_manifest, logging.DEBUG)
    state = newest[1].state if newest else {}
    steps = [state.get(name) for name in ("best_step", "saved_best_step")]
    best, saved = (step_folder(run_dir, step) if isinstance(step, int) else None for step in steps)
    front = [folder for folder in (best, saved) if folder in folders][:1]
    is_lost = best is not None and best not in folders
    lost = missing_best(run_dir, steps[0], state.get("best_loss")) if is_lost else None
    return front + [folder for folder in folders if folder not in front], lost


def read_tensors(folder: str, manifest: CheckpointManifest) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a checkpoint, one after the other; it is whole only if this comes to its end without an error.

    Raises:
        CheckpointError: if a file cannot be reached.
        DamagedCheckpointError: if a file is not what the manifest says; it names the file.
    """
    storage = Storage(folder)
    for file in sorted(manifest.files):
        yield from read_file(storage, file, manifest)


def read_checkpoint(folder: str) -> CheckpointManifest:
    """Read a checkpoint's manifest, and check every file against it.

    Raises:
        CheckpointError: if it is not there, not a checkpoint, of another format version, or cannot be reached.
        DamagedCheckpointError: if it is not whole; it names the file.
    """
    manifest = read_manifest(folder)
    for _ in read_tensors(folder, manifest):
        pass
    return manifest


def refuse_other_tensors(
    where: str, theirs: Mapping[str, Tensor | TensorEntry], ours: Mapping[str, Tensor], *, exactly: bool = True
) -> None:
    """Refuse tensors that are not those of a model.

    Args:
        where: they were read.
        theirs: the tensors by name, or their entries in a manifest.
        ours: the tensors that are wanted.
        exactly: there must be no more of them.

    Raises:
        CheckpointError: naming some that are missing, superfluous, or of another type or shape.
    """
    wrong = []
    for name in sorted({*ours, *(theirs if exactly else ())}):
        there, here = (_form(tensors[name]) if name in tensors else "missing" for tensors in (theirs, ours))
        if there != here:
            wrong.append(f"{name} is {there} there and {here} here")
    if wrong:
        more = f"; and {len(wrong) - _MOST_NAMED} tensors more" if len(wrong) > _MOST_NAMED else ""
        raise CheckpointError(
            f"{where} is of another model: {'; '.join(wrong[:_MOST_NAMED])}{more}; give the options of the model that "
            "was trained"
        )


def _form(tensor: Tensor | TensorEntry) -> str:
    dtype = DTYPES[tensor.dtype] if isinstance(tensor, TensorEntry) else tensor.dtype
    return f"{str(dtype).removeprefix('torch.')} {list(tensor.shape)}"


def read_weights(folder: str, manifest: CheckpointManifest) -> dict[str, Tensor]:
    """A model's weights and buffers, by their names in the model; the whole checkpoint is read and checked.

    Raises:
        CheckpointError: as `read_tensors` does.
    """
    prefix = "model."
    tensors = read_tensors(folder, manifest)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors if name.startswith(prefix)}


def read_exported_weights(folder: str) -> dict[str, Tensor]:
    """A model's weights and buffers, as an exported model holds them.

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
    """Give a network weights and buffers that were read.

    Raises:
        CheckpointError: if they are another network's.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        # The first line names the network; of another shape, it differs in every tensor.
        said = textwrap.shorten(" ".join(str(error).splitlines()[1:]), 300, placeholder=" ...")
        raise CheckpointError(f"{where} is of another model: {said}") from error


def spread_tensors(
    folder: str, manifest: CheckpointManifest, layout: Mapping[str, Tensor], group: Group
) -> Iterator[tuple[str, Tensor]]:
    """The same tensors, one after the other, on every rank; rank 0 reads. All ranks must iterate together, to the end.

    Args:
        folder: of the checkpoint.
        manifest: its manifest.
        layout: the tensors that are wanted.
        group: of the ranks, on host memory.

    Raises:
        CheckpointError: on every rank, as `refuse_other_tensors` and `read_tensors` do.
    """
    group.on_rank_0(lambda: refuse_other_tensors(folder, manifest.tensors, layout, exactly=False))
    source = read_tensors(folder, manifest) if group.rank == 0 else iter(())
    for file in sorted(manifest.files):
        for name, entry in manifest.entries_of(file).items():
            values: list[Tensor] = []
            # What is not wanted is read as well.
            group.on_rank_0(lambda values=values: values.append(next(source)[1]))  # type: ignore[misc]
            if name in layout:
                tensor = values[0] if values else torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
                group.broadcast(tensor.reshape(-1).view(torch.uint8))
                yield name, tensor
    # Only now the last file's checksum is known.
    group.on_rank_0(lambda: next(source, None))


@dataclass(frozen=True)
class Listed:
    """A checkpoint, whole or not.

    Attributes:
        folder: where it stands.
        manifest: None if it cannot be read.
        problems: what is wrong with it, a sentence each; none if it is whole.
    """

    folder: str
    manifest: CheckpointManifest | None
    problems: list[str]

    @property
    def cells(self) -> tuple[str, ...]:
        """What a table of checkpoints says: step, time, size, world size, engine, validation, whether it is whole."""
        said, manifest = ("",) * 5, self.manifest
        if manifest is not None:
            size = f"{manifest.num_bytes / 2**20:,.1f} MiB"
            said = (manifest.saved_at, size, str(manifest.world_size), manifest.engine, _validation(manifest))
        return (self.folder.rsplit("/", 1)[-1], *said, "no" if self.problems else "yes")


HEADINGS = ("checkpoint", "saved at", "size", "world size", "engine", "validation loss", "whole")


def _validation(manifest: CheckpointManifest) -> str:
    """The loss of a checkpoint that was the best up to then; of another, the best until then."""
    loss, step = manifest.state.get("best_loss"), manifest.state.get("best_step")
    if not isinstance(loss, float) or not math.isfinite(loss):
        return "none yet"
    return f"{loss:.4f}" if step == manifest.step else f"best so far {loss:.4f}, of step {step}"


def examine(folder: str) -> Listed:
    """A checkpoint and all that is wrong with it: every file is read."""
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
    """The checkpoints of a run, newest first, or the one that a path is of, with all that is wrong with them.

    Raises:
        CheckpointError: if there is none.
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
