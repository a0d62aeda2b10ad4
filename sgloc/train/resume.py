"""Which checkpoint a run goes on from, and whether it may."""

from collections.abc import Callable
from dataclasses import asdict

import fsspec.core

from sgloc.config import Config, identity
from sgloc.data.manifest import Manifest
from sgloc.errors import CheckpointError
from sgloc.train.checkpoint import CheckpointManifest, newest_checkpoint, read_checkpoint
from sgloc.train.checkpoint.manifest import FILE_NAME, checkpoint_steps


def checkpoint_to_resume(run_dir: str, resume: str, say: Callable[[str], None]) -> str | None:
    """The folder of the checkpoint to go on from; None to start anew.

    Args:
        run_dir: the run's folder or URL.
        resume: "auto": the run's newest whole checkpoint, if it has any. "never": none. Else a checkpoint's or a run's
            folder to start from; once the
            run has checkpoints of its own, they win, so that a requeued job may keep its command.
        say: is told of checkpoints that are skipped.

    Raises:
        CheckpointError: if what was asked for is not there or damaged, or would leave work of this run behind.
    """
    steps = checkpoint_steps(run_dir)
    if resume == "never":
        if steps:
            raise CheckpointError(
                f"{run_dir} already holds checkpoints, which --resume never would overwrite; "
                "give another --train.run_dir"
            )
        return None
    if steps:
        newest = newest_checkpoint(run_dir, say)
        if newest is None:
            raise CheckpointError(
                f"none of the {len(steps)} checkpoints in {run_dir} is whole; "
                "restore one, or give another --train.run_dir"
            )
        if resume != "auto" and _is_other_of(resume, newest):
            read_checkpoint(resume)
            raise CheckpointError(
                f"{run_dir} has a newer checkpoint than {resume}; "
                "to branch off from there, give another --train.run_dir"
            )
        return newest
    if resume == "auto":
        return None
    file_system, root = fsspec.core.url_to_fs(resume)
    if file_system.exists(f"{root}/{FILE_NAME}"):
        read_checkpoint(resume)
        return resume
    newest = newest_checkpoint(resume, say)
    if newest is None:
        raise CheckpointError(
            f"{resume} holds no whole checkpoint; give a run's folder or one of its checkpoints/step-*"
        )
    return newest


def _is_other_of(path: str, newest: str) -> bool:
    """Whether a path is another checkpoint of the same run."""
    root: str = fsspec.core.url_to_fs(path)[1]
    newest_root: str = fsspec.core.url_to_fs(newest)[1]
    return root != newest_root and root.rsplit("/", 1)[0] == newest_root.rsplit("/", 1)[0]


def refuse_other_run(folder: str, checkpoint: CheckpointManifest, config: Config, manifest: Manifest) -> None:
    """Refuse to go on from a checkpoint of a run that computes something else.

    Raises:
        CheckpointError: naming the first option that differs, or the data.
    """
    theirs, ours = identity(checkpoint.config), identity(asdict(config))
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise CheckpointError(
                f"checkpoint {folder} is of another run: "
                f"it has {name} = {theirs.get(name)}, this one {ours.get(name)}; "
                "give that value, or another --train.run_dir"
            )
    if checkpoint.data_identity != manifest.identity:
        raise CheckpointError(
            f"checkpoint {folder} was trained on other shards than {config.data.path}; "
            "give those, or another --train.run_dir to start anew"
        )
