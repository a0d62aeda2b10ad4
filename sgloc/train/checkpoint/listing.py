"""A run's checkpoints as people want to see them."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from sgloc.errors import CheckpointError
from sgloc.storage import Storage
from sgloc.strict_json import finite
from sgloc.train.checkpoint.finding import checkpoint_steps, is_checkpoint, no_checkpoint
from sgloc.train.checkpoint.manifest import CheckpointManifest, read_manifest, step_folder
from sgloc.train.checkpoint.shards import read_shard


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
        name, whole = self.folder.rsplit("/", 1)[-1], "no" if self.problems else "yes"
        if self.manifest is None:
            return (name, "", "", "", "", "", whole)
        manifest = self.manifest
        return (
            name,
            manifest.saved_at,
            f"{manifest.num_bytes / 2**20:,.1f} MiB",
            str(manifest.world_size),
            manifest.engine,
            _validation(manifest),
            whole,
        )


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
            for _ in read_shard(storage, file, manifest):
                pass
        except CheckpointError as error:
            problems.append(str(error))
    return Listed(folder, manifest, problems)


def list_checkpoints(path: str) -> list[Listed]:
    """The checkpoints of a run, newest first, or the one that a path is of, with all that is wrong with them.

    Raises:
        CheckpointError: if there is none.
    """
    if is_checkpoint(path):
        return [examine(path)]
    steps = checkpoint_steps(path)
    if not steps:
        raise no_checkpoint(path)
    return [examine(step_folder(path, step)) for step in steps]


def facts(manifest: CheckpointManifest) -> dict[str, Any]:
    """A manifest as JSON has it, which knows no infinity: null stands for it."""
    plain: dict[str, Any] = finite(dataclasses.asdict(manifest))
    return plain
