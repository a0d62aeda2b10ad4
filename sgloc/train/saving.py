"""What a run saves, when, and how it is brought back."""

import dataclasses
import hashlib
import json

import torch

from sgloc import dist
from sgloc.config import Config, identity
from sgloc.data.manifest import Manifest
from sgloc.errors import CheckpointError
from sgloc.train.checkpoint import (
    CheckpointManifest,
    load_tensors,
    read_checkpoint,
    refuse_other_tensors,
    save_checkpoint,
)
from sgloc.train.engine import Engine
from sgloc.train.resume import refuse_other_run
from sgloc.train.state import LossWindow, TrainState
from sgloc.train.versions import versions


class Saving:
    """Saves a run's checkpoints.

    Args:
        config: of the run.
        manifest: of its shards.
        world_size: the number of processes.
        saved_step: of the run's newest checkpoint; None when it has none.
    """

    def __init__(self, config: Config, manifest: Manifest, world_size: int, saved_step: int | None) -> None:
        self.config, self.manifest, self.world_size = config, manifest, world_size
        self.saved_step = saved_step

    def save(self, engine: Engine, state: TrainState) -> None:
        """Save a checkpoint. All ranks must call it together."""
        save_checkpoint(
            self.config.train.run_dir,
            self._describe(state),
            engine.snapshot(lambda name: True),
            keep=self.config.train.keep_checkpoints,
            best_step=state.best_step,
        )
        self.saved_step = state.step

    def save_at_last(self, engine: Engine, state: TrainState) -> None:
        """Save a checkpoint, unless that of this step is, and wait until it is committed. All ranks must call it
        together."""
        if self.saved_step != state.step:
            self.save(engine, state)

    def close(self) -> None:
        """Nothing more is saved."""

    def _describe(self, state: TrainState) -> CheckpointManifest:
        options = dataclasses.asdict(self.config)
        return CheckpointManifest(
            step=state.step,
            world_size=self.world_size,
            global_batch=self.config.train.global_batch,
            config=options,
            config_hash=hashlib.sha256(json.dumps(identity(options)).encode()).hexdigest(),
            data_identity=self.manifest.identity,
            scale=self.manifest.scale,
            longest_points=self.manifest.longest_points,
            state=dataclasses.asdict(state),
            versions=versions(),
            files={},
        )


def restore(engine: Engine, folder: str, config: Config, manifest: Manifest) -> TrainState:
    """Bring an engine to where a checkpoint left it. All ranks must call it together.

    Args:
        engine: of the same model.
        folder: the checkpoint's, which has been verified.
        config: of the run.
        manifest: of the shards.

    Returns:
        The rest of the run's state.

    Raises:
        CheckpointError: if it is of another run or model, or cannot be read.
    """
    checkpoint = read_checkpoint(folder, verify=False)
    layout = engine.layout()

    def check() -> TrainState:
        refuse_other_run(folder, checkpoint, config, manifest)
        refuse_other_tensors(folder, checkpoint, layout)
        try:
            return TrainState(**{**checkpoint.state, "window": LossWindow(**checkpoint.state["window"])})
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the state in {folder} is not this program's ({error})") from error

    state = dist.on_rank_0(check)
    tensors = {name: torch.empty_like(tensor, device="cpu") for name, tensor in layout.items()}
    load_tensors(folder, checkpoint, tensors)
    engine.restore(tensors.items())
    return state
