"""Which of a run's checkpoints to take: the newest that verifies; those that are skipped are named (DESIGN
contract 4)."""

import os.path
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sgloc.errors import CheckpointError, DamagedCheckpointError
from sgloc.storage import Storage
from sgloc.train.checkpoint.manifest import FILE_NAME, FOLDER, read_manifest, step_folder
from sgloc.train.checkpoint.reading import read_checkpoint
from sgloc.train.checkpoint.writing import complete_steps

Value = TypeVar("Value")


def checkpoint_steps(run_dir: str) -> list[int]:
    """Steps of the run's checkpoints that have a manifest, newest first; nothing else counts."""
    return complete_steps(Storage(f"{run_dir.rstrip('/')}/{FOLDER}"))


def checkpoint_folders(run_dir: str) -> list[str]:
    """Where they stand."""
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
    folders: Iterable[str], use: Callable[[str], Value], say: Callable[[str], None]
) -> tuple[str, Value] | None:
    """Use the first checkpoint that is whole.

    Args:
        folders: the checkpoints', in the order in which they are tried.
        use: is given a folder; raises DamagedCheckpointError where the checkpoint turns out not to be whole.
        say: is told of checkpoints that are skipped.

    Returns:
        Its folder and what the use of it gave; None if there is none.
    """
    for folder in folders:
        try:
            return folder, use(folder)
        except DamagedCheckpointError as error:
            say(f"skipping checkpoint {folder}: {error}")
    return None


def newest_checkpoint(run_dir: str, say: Callable[[str], None]) -> str | None:
    """The folder of the newest checkpoint that verifies; None if there is none. Each that is skipped is told through
    `say`."""
    found = first_whole(checkpoint_folders(run_dir), read_checkpoint, say)
    return found[0] if found else None


def use_checkpoint(path: str, use: Callable[[str], Value], say: Callable[[str], None]) -> tuple[str, Value]:
    """Use the checkpoint that a path means: itself; or, of a run's folder, the one with the best validation loss, else
    the newest.

    Args:
        path: of a checkpoint or a run.
        use: see `first_whole`.
        say: is told of checkpoints that are skipped.

    Returns:
        The checkpoint's folder and what the use of it gave.

    Raises:
        CheckpointError: if there is none that is whole.
    """
    if is_checkpoint(path):
        return path, use(path)
    folders = checkpoint_folders(path)
    if not folders:
        raise no_checkpoint(path)
    found = first_whole(_best_first(path, folders, say), use, say)
    if found is None:
        raise CheckpointError(f"no checkpoint in {path} is whole; all {len(folders)} are damaged")
    return found


def find_checkpoint(path: str, say: Callable[[str], None]) -> str:
    """The folder of the checkpoint that a path means, as `use_checkpoint` has it, verified."""
    return use_checkpoint(path, read_checkpoint, say)[0]


def missing_best(run_dir: str, step: int | None, loss: float | None) -> str:
    """The sentence about a best checkpoint that is named and not there."""
    said = f" (validation loss {loss:.4f})" if isinstance(loss, float) else ""
    return (
        f"the best checkpoint of {run_dir}, of step {step}{said}, is not there: it could not be written, or was removed"
    )


def lost_best(run_dir: str) -> str | None:
    """The sentence about a run's best checkpoint if it is not there; None if it is, or nothing was validated."""
    folders = checkpoint_folders(run_dir)
    state = _state_of_newest(folders)
    step = state.get("best_step")
    if not isinstance(step, int) or step_folder(run_dir, step) in folders:
        return None
    return missing_best(run_dir, step, state.get("best_loss"))


def _best_first(run_dir: str, folders: list[str], say: Callable[[str], None]) -> list[str]:
    """The checkpoints of a run, newest first, with the best one at the front."""
    state = _state_of_newest(folders)
    steps = [step for name in ("best_step", "saved_best_step") if isinstance(step := state.get(name), int)]
    best = [folder for step in steps if (folder := step_folder(run_dir, step)) in folders][:1]
    ordered = best + [folder for folder in folders if folder not in best]
    if isinstance(state.get("best_step"), int) and step_folder(run_dir, state["best_step"]) not in folders:
        say(f"{missing_best(run_dir, state['best_step'], state.get('best_loss'))}; {ordered[0]} is taken in its place")
    return ordered


def _state_of_newest(folders: list[str]) -> dict[str, Any]:
    """The training state in the newest manifest that can be read, which says what holds for all; else nothing."""
    newest = first_whole(folders, read_manifest, lambda _: None)
    return newest[1].state if newest else {}
