"""A run in progress: everything the loop works with."""

import functools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgloc import dist
from sgloc.config import RunConfig
from sgloc.data.batch import PackedBatch
from sgloc.data.loader import Feed
from sgloc.data.manifest import Manifest
from sgloc.data.stream import Share
from sgloc.errors import TrainingError
from sgloc.failpoint import failpoint
from sgloc.train.bad_steps import FILE_NAME as BAD_STEPS
from sgloc.train.bad_steps import write_bad_step
from sgloc.train.engine import Engine
from sgloc.train.loggers.protocol import Logger, Record
from sgloc.train.loggers.terminal import tell
from sgloc.train.recipe import Gallery, Prepare, Recipe
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
        recipe: of the model.
        prepare: makes training batches ready on the device.
        validation: computes the validation loss.
        state: advances with the run, and is saved.
        saving: saves it.
        stop: set when this process was asked to stop.
        gallery: draws validation sketches; None when nobody wants them.
        loggers: take the records and the pictures; empty except on rank 0.
        is_stopped: some rank was asked to stop, as all ranks know.
        kept_loss: validation loss of this step while its weights are to be saved as the best; else None.
    """

    config: RunConfig
    placement: dist.Placement
    device: torch.device
    manifest: Manifest
    engine: Engine
    recipe: Recipe
    prepare: Prepare
    validation: Validation
    state: TrainState
    saving: Saving
    stop: StopFlag
    gallery: Gallery | None
    loggers: list[Logger]
    is_stopped: bool = False
    kept_loss: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or validation has not improved for too long."""
        return self.state.is_finished(self.config.train.num_steps, self.config.train.patience)

    @functools.cached_property
    def _validation_interval(self) -> int:
        return self.config.train.validation_interval(self.manifest.splits["train"].num_sketches)

    def feed(self) -> Feed:
        """This rank's batches from where the run stands."""
        size = self.config.train.global_batch
        share = Share(size, self.placement.rank, self.placement.world_size, self.state.step * size)
        load = self.prepare.load if self.recipe.loads_ahead else None
        train = self.config.train
        return Feed(
            self.config.data, self.manifest, self.state, share, train.seed, self.device, load, patience=train.timeout
        )

    def account(self, losses: Any, gradient_norm: Tensor, packed: PackedBatch) -> bool:
        """Add a step's losses of all ranks to the window, unless they or the gradient are not finite.

        Args:
            losses: of this rank's share of the batch, as the model gives them.
            gradient_norm: of the whole gradient.
            packed: the share.

        Returns:
            Whether the step is to be taken. All ranks agree on it, and on whether to stop since some rank was asked to.

        Raises:
            TrainingError: if too many steps in a row are not finite.
            UnreachableError: if the store takes longer than train.timeout for a checkpoint.
        """
        own = [float(term) for term in losses]
        if failpoint("loss", self.state.step):
            own[-1] = float("nan")
        numbers = [*own, float(self.stop.requested), float(self.saving.is_overdue)]
        *sums, stops, overdue = dist.sum_over_ranks(numbers, self.device)
        self.is_stopped = stops > 0
        if overdue:
            self.saving.refuse_overdue()
        if not np.isfinite(sums[-1] + float(gradient_norm)):
            self._skip_step(own[-1], float(gradient_norm), packed)
            return False
        self.state.num_bad_steps = 0
        window = self.state.window
        window.num_sketches += self.config.train.global_batch
        for name, value in zip(losses._fields, sums, strict=True):
            window.sums[name] = window.sums.get(name, 0.0) + value
        return True

    def _skip_step(self, loss: float, gradient_norm: float, packed: PackedBatch) -> None:
        """Write the step's sketches down, and give up if there were too many such steps in a row."""
        run_dir, state, most = self.config.train.run, self.state, self.config.train.bad_steps
        patience = self.config.train.timeout / 2
        write_bad_step(run_dir, state.step, loss, gradient_norm, packed.key_id, patience)
        state.num_bad_steps += 1
        state.num_skipped_steps += 1
        if state.num_bad_steps > most:
            error = TrainingError(
                f"the loss or gradient of step {state.step} is not finite, after {most} such steps in a row that were "
                f"skipped; their sketches are in {run_dir}/{BAD_STEPS}; lower optimizer.learning_rate, and start again "
                "in another --train.run"
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
        *others, total = self.engine.model.loss_names
        means: Record = {}
        for name, term in (("loss", total), *((name, name) for name in others)):
            # All steps of the window may have been skipped.
            means[name] = window.sums[term] / window.num_sketches if window.num_sketches else None
        means["skipped_steps"] = self.state.num_skipped_steps
        self.log(
            "train", {**means, "gradient_norm": float(gradient_norm), "learning_rate": learning_rate, **performance}
        )
        self.state.window = LossWindow()

    def validate_if_due(self) -> bool:
        """Validate at the steps where the configuration says so, log it, and show what the model draws.

        A validation that a stop cuts short counts for nothing; the resumed run does it again.

        Returns:
            Whether the weights are to be saved as the best.
        """
        state, step, every = self.state, self.state.step, self.config.train
        is_due = step > 0 and (step % self._validation_interval == 0 or step == every.num_steps)
        if not is_due or state.validated_step == step:
            return False
        autocast = every.precision == "bfloat16"
        with self.engine.whole_model() as model:
            losses = self.validation(model, self.device, autocast, lambda: self.stop.requested)
        if losses is None:
            self.is_stopped = True
            return False
        state.validated_step = step
        loss, is_best_lost = losses["loss"], self.is_best_lost
        improved = loss < state.best_loss
        if improved:
            state.best_loss, state.best_step, state.num_bad_validations = loss, step, 0
        else:
            state.num_bad_validations += 1
        self.log("validation", {**losses, "best_loss": state.best_loss, "best_step": state.best_step})
        self._show_galleries()
        # Where the best is lost, the best of what follows is kept.
        is_kept = improved or (is_best_lost and loss < self.saving.best_kept(state))
        self.kept_loss = loss if is_kept else None
        return is_kept

    @property
    def is_best_lost(self) -> bool:
        """Whether the weights of the best validation are neither saved nor in memory."""
        best = self.state.best_step
        return best not in (None, self.state.saved_best_step) and not self.saving.holds(best)

    def _show_galleries(self) -> None:
        """Have rank 0 draw, while the others wait."""
        if self.gallery is None:
            return
        with self.engine.whole_model() as model:
            pictures = self.gallery.draw(model, self.device) if self.placement.rank == 0 else {}
        for name, png in pictures.items():
            for logger in self.loggers:
                logger.show(name, self.state.step, png)

    def save(self) -> None:
        """Save a checkpoint of this step: training may go on while it is written."""
        failpoint("save", self.state.step)
        since = time.monotonic()
        self._flush()
        loss, self.kept_loss = self.kept_loss, None
        self.saving.save(self.engine, self.state, loss, since=since)

    def save_at_last(self) -> None:
        """Save a checkpoint of this step, and the best, unless that has been done, and wait until all is committed."""
        since = time.monotonic()
        self._flush()
        loss, self.kept_loss = self.kept_loss, None
        self.saving.save_at_last(self.engine, self.state, loss, since=since)

    def _flush(self) -> None:
        """A run that goes on from a checkpoint goes on with the lines up to it."""
        for logger in self.loggers:
            logger.flush()

    def say(self, sentence: str) -> None:
        """Tell the user, once for all ranks."""
        if self.placement.rank == 0:
            tell(sentence)
