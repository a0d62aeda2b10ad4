"""A run in progress: everything the loop works with."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sgloc import dist
from sgloc.config import Config
from sgloc.data.batch import PackedBatch, Preparation
from sgloc.data.manifest import Manifest
from sgloc.data.stream import Share
from sgloc.errors import TrainingError
from sgloc.failpoint import failpoint
from sgloc.nn.sketchgloc import LossSums
from sgloc.train.bad_steps import FILE_NAME as BAD_STEPS
from sgloc.train.bad_steps import write_bad_step
from sgloc.train.engine import Engine
from sgloc.train.feed import Feed
from sgloc.train.metrics import Logger, Record, Terminal
from sgloc.train.saving import Saving
from sgloc.train.signals import StopFlag
from sgloc.train.state import LossWindow, TrainState
from sgloc.train.validate import Validation


@dataclass
class Session:
    """What a run consists of.

    Attributes:
        config: the whole configuration.
        placement: of this process.
        device: of this process.
        manifest: of the shards.
        engine: takes the steps.
        prepare: makes training batches ready on the device.
        validation: computes the validation loss.
        state: advances with the run, and is saved.
        saving: saves it.
        stop: set when this process was asked to stop.
        loggers: take the records; empty except on rank 0.
    """

    config: Config
    placement: dist.Placement
    device: torch.device
    manifest: Manifest
    engine: Engine
    prepare: Preparation
    validation: Validation
    state: TrainState
    saving: Saving
    stop: StopFlag
    loggers: list[Logger]

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or validation has not improved for too long."""
        patience = self.config.train.patience
        return self.state.step >= self.config.train.num_steps or bool(
            patience and self.state.num_bad_validations >= patience
        )

    def feed(self) -> Feed:
        """This rank's batches from where the run stands."""
        size = self.config.train.global_batch
        share = Share(size, self.placement.rank, self.placement.world_size, self.state.step * size)
        return Feed(self.config.data, self.manifest, self.state, share, self.config.train.seed, self.device)

    def account(self, losses: LossSums, gradient_norm: Tensor, packed: PackedBatch) -> tuple[bool, bool]:
        """Add a step's losses of all ranks to the window, unless they or the gradient are not finite.

        Args:
            losses: of this rank's share of the batch.
            gradient_norm: of the whole gradient.
            packed: the share.

        Returns:
            Whether to stop, since some rank was asked to; and whether the step is to be taken. All ranks agree on both.

        Raises:
            TrainingError: if too many steps in a row are not finite.
        """
        numbers = [*(float(term) for term in losses), float(self.stop.requested)]
        mixture, pen, divergence, total, stops = dist.sum_over_ranks(numbers, self.device)
        if failpoint("loss", self.state.step):
            total = float("nan")
        if not np.isfinite(total + float(gradient_norm)):
            self._skip_step(float(losses.total), float(gradient_norm), packed)
            return stops > 0, False
        self.state.num_bad_steps = 0
        window = self.state.window
        window.num_sketches += self.config.train.global_batch
        window.mixture += mixture
        window.pen += pen
        window.divergence += divergence
        window.total += total
        return stops > 0, True

    def _skip_step(self, loss: float, gradient_norm: float, packed: PackedBatch) -> None:
        """Write the step's sketches down, and give up if there were too many such steps in a row."""
        run_dir, state, most = self.config.train.run_dir, self.state, self.config.train.bad_steps
        write_bad_step(run_dir, state.step, loss, gradient_norm, packed.key_id)
        state.num_bad_steps += 1
        state.num_skipped_steps += 1
        if state.num_bad_steps > most:
            error = TrainingError(
                f"the loss or gradient of step {state.step} is not finite, after {most} such steps in a row that were "
                f"skipped; their sketches are in {run_dir}/{BAD_STEPS}; lower optimizer.learning_rate, and start again "
                "in another --train.run_dir"
            )
            # All ranks see the same numbers and come here together.
            error.told = self.placement.rank != 0
            raise error
        self.say(f"step {state.step} is skipped: its loss or gradient is not finite ({run_dir}/{BAD_STEPS})")

    def log(self, event: str, record: Record) -> None:
        """Give a record of this step to every logger."""
        for logger in self.loggers:
            logger.log({"step": self.state.step, "event": event, **record})

    def log_training(self, gradient_norm: Tensor, learning_rate: float, performance: Record) -> None:
        """Log the losses since the last such line, averaged, with the last step's gradient norm, and start a new
        window."""
        window = self.state.window
        sums = {"loss": window.total, "mixture": window.mixture, "pen": window.pen, "divergence": window.divergence}
        # All steps of the window may have been skipped.
        means: Record = {
            name: value / window.num_sketches if window.num_sketches else None for name, value in sums.items()
        }
        means["skipped_steps"] = self.state.num_skipped_steps
        self.log(
            "train", {**means, "gradient_norm": float(gradient_norm), "learning_rate": learning_rate, **performance}
        )
        self.state.window = LossWindow()

    def validate(self) -> bool:
        """Validate, log it, and say whether it is a new best."""
        losses = self.validation(self.engine.model, self.device, self.config.train.precision == "bfloat16")
        improved = losses["loss"] < self.state.best_loss
        if improved:
            self.state.best_loss, self.state.best_step, self.state.num_bad_validations = (
                losses["loss"],
                self.state.step,
                0,
            )
        else:
            self.state.num_bad_validations += 1
        self.log("validation", {**losses, "best_loss": self.state.best_loss, "best_step": self.state.best_step})
        return improved

    def save(self) -> None:
        """Save a checkpoint of this step: training may go on while it is written."""
        failpoint("save", self.state.step)
        self.saving.save(self.engine, self.state)

    def save_at_last(self) -> None:
        """Save a checkpoint of this step, unless that has been done, and wait until it is committed."""
        self.saving.save_at_last(self.engine, self.state)

    def say(self, sentence: str) -> None:
        """Tell the user, once for all ranks."""
        if self.placement.rank == 0:
            Terminal(self.config.train.num_steps).console.print(sentence, soft_wrap=True)
