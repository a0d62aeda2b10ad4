"""The trainer: build, train step, validation, saving."""

import contextlib
import dataclasses
import logging
import math
import os
from typing import Any

from torch import Tensor

from sgloc import dist
from sgloc.config import RunConfig
from sgloc.data.batch import PackedBatch
from sgloc.data.loader import Loader
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.errors import ConfigError, DataError, TrainingError
from sgloc.failpoint import failpoint
from sgloc.storage import only_writer
from sgloc.tf32 import float32_products
from sgloc.train.checkpoint.format import step_folder
from sgloc.train.checkpoint.manager import CheckpointManager
from sgloc.train.engine import open_engine, prepare_engine
from sgloc.train.faults import BAD_STEPS, StopFlag, refuse_other_ranks, write_bad_step
from sgloc.train.loggers.base import Loggers, Record
from sgloc.train.loggers.open import open_loggers, shows_galleries, with_environment
from sgloc.train.meter import Meter
from sgloc.train.recipe import Recipe
from sgloc.train.record import processor, versions, write_record
from sgloc.train.schedule import learning_rate
from sgloc.train.start import checkpoints_to_resume, find_start, resume_from, saved_best
from sgloc.train.state import LossWindow
from sgloc.train.validation import Validation

logger = logging.getLogger(__name__)


def train(config: RunConfig, resume: str, recipe: Recipe) -> None:
    """Train until all steps are done, validation stops improving, or a stop signal arrives.

    Args:
        config: configuration of the run, of the recipe's `config_type`.
        resume: "auto" to resume from the newest intact checkpoint in the run folder, if any; "never"; or the folder of
            a checkpoint.
        recipe: recipe of the model.

    Raises:
        SglocError: if the configuration, the shards or the checkpoint cannot be used, or too many consecutive steps
            have a non-finite loss or gradient.
    """
    with dist.explaining_lost_ranks(config.train.timeout), Trainer(config, resume, recipe) as trainer:
        trainer.train()


class Trainer(contextlib.AbstractContextManager["Trainer"]):
    """A run in progress, started from scratch or restored from a checkpoint.

    A context manager: inside it, stop signals only set a flag, on which the ranks agree at step boundaries. The
    constructor and all methods are collective.

    Args and Raises: see `train`.

    Attributes:
        config: the resolved configuration.
        group: group of the ranks.
        manifest: manifest of the shards.
        engine: computes gradients and takes optimizer steps.
        prepare: turns packed sketches into training batches on the device.
        validation: computes the validation loss.
        state: training state, saved in every checkpoint.
        checkpoints: checkpoint manager.
        gallery: draws validation sketches; None if galleries are not wanted.
        loggers: receive records and pictures; empty except on rank 0.
        is_stopped: whether some rank has received a stop signal; the same on all ranks.
    """

    # Build.

    def __init__(self, config: RunConfig, resume: str, recipe: Recipe) -> None:
        self._stop, self.is_stopped = StopFlag(), False
        with contextlib.ExitStack() as stack:
            self._build(config, resume, recipe, stack)
            self._resources = stack.pop_all()

    def __exit__(self, *error: Any) -> None:
        """Finish pending writes and release all resources."""
        self._resources.__exit__(*error)

    def _build(self, config: RunConfig, resume: str, recipe: Recipe, stack: contextlib.ExitStack) -> None:
        self._join(config, stack)
        group, run_dir = self.group, config.train.run
        manifest = group.asking(f"the store of {config.data.path}").on_each_rank(lambda: self._load_data(config))
        refuse_other_ranks(config, manifest, versions(), group)
        config = dataclasses.replace(config, log=group.on_rank_0(lambda: with_environment(config.log, os.environ)))
        self.prepare, fixed = group.on_each_rank(lambda: recipe.preparations(config, manifest))
        model = recipe.build_model(config, manifest).to(group.device)

        # Checkpoints are listed twice: before anything is written to the run folder, so that a refused start leaves no
        # trace, and again once this run is the only writer; the second list is final.
        asking = group.asking(f"the store of {run_dir}")
        init_from, weights = asking.on_rank_0(lambda: find_start(config, resume, manifest, model))
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=init_from))
        if weights is not None:
            model.load_state_dict(weights)
        claim = asking.on_rank_0(lambda: stack.enter_context(only_writer(run_dir)))
        folders = asking.on_rank_0(lambda: checkpoints_to_resume(run_dir, resume, logging.DEBUG))

        writers = group.separate()
        stack.callback(writers.close)
        self.loggers = Loggers()
        # Registered early so as to run after the last checkpoint is written: closing W&B may take long.
        stack.callback(self.loggers.close)
        self.engine = open_engine(model, config, group)
        stack.callback(self.engine.close)
        readers = writers.asking(f"the store of {run_dir}")
        self.state, folder = resume_from(folders, self.engine, config, manifest, readers)
        state = self.state
        saved_step = state.step if folder == step_folder(run_dir, state.step) else None
        if saved_step is None:
            # A run that branches off from another must not append to that run's curves.
            state.wandb_id = None
        state.saved_best_step, state.saved_best_loss = asking.on_rank_0(lambda: saved_best(run_dir, state))
        self.checkpoints = CheckpointManager(
            config, manifest, self.engine, state, group, writers, saved_step, claim.check, self._stop.is_set
        )
        stack.callback(self.checkpoints.close)

        self.config, self.manifest = config, manifest
        self.validation = Validation(config, manifest, fixed, group)
        self.gallery = recipe.gallery(config, self.validation.reader, manifest) if shows_galleries(config) else None
        asking.on_rank_0(lambda: write_record(config))
        state.wandb_id = asking.on_rank_0(lambda: open_loggers(self.loggers, config, state.step, state.wandb_id))
        anew = "starting from scratch" if weights is None else f"starting from the weights of {init_from}"
        self._greet(f"resuming from {folder}" if folder else anew)

    def _join(self, config: RunConfig, stack: contextlib.ExitStack) -> None:
        """Select the device, install the signal handlers, and join the process group."""
        self.placement = dist.resolve_placement(os.environ)
        device = dist.select_device(config.train.device, self.placement)
        stack.enter_context(float32_products(device, config.train.tf32))
        # Before anything else can initialize CUDA on GPU 0.
        dist.use_device(device)
        prepare_engine(config, device)
        # Outlives the process group: when one rank is lost, the launcher terminates the others, which must still be
        # able to report the loss.
        stack.enter_context(self._stop.listening())
        self.group = stack.enter_context(dist.process_group(self.placement, device, config.train.timeout))

    def _load_data(self, config: RunConfig) -> Manifest:
        if not config.data.path:
            raise ConfigError("data.path is not set; set it to a folder of shards built by `sgloc shard`")
        if config.train.global_batch < self.group.world_size:
            raise ConfigError(
                f"train.global_batch is {config.train.global_batch}, "
                f"but there are {self.group.world_size} processes; each needs at least one drawing per step"
            )
        manifest = load_manifest(config.data.path)
        if manifest.splits["valid"].num_sketches == 0:
            raise DataError(f"{config.data.path} has no validation drawings; build the shards from more drawings")
        return manifest

    def _greet(self, how: str) -> None:
        placement, device, splits = self.placement, self.group.device, self.manifest.splits
        moments = [tensor.numel() for name, tensor in self.engine.layout().items() if name.endswith(".exp_avg")]
        logger.info(
            f"{how} in {self.config.train.run}: {self.engine.name} over {dist.backend(device)}, "
            f"{placement.world_size} process(es) by {placement.launcher} on {placement.num_nodes} node(s), "
            f"{processor(device)}, {sum(moments):,} parameters, {splits['train'].num_sketches:,} training drawings of "
            f"{len(self.manifest.categories)} categories"
        )

    # Step.

    def train(self) -> None:
        """Train until the run is finished or stopped, and save a final checkpoint."""
        state, every = self.state, self.config.train
        # A stop may have interrupted the validation due at this step.
        best = self.validate_if_due()
        if best is not None:
            self.save(best)
        loader, meter = self._loader(), Meter(state, every.global_batch, self.group)
        with contextlib.closing(iter(loader)) as batches:
            while not (self.is_stopped or self.is_finished):
                with meter.waiting():
                    packed, loaded = next(batches)
                state.num_skipped_sketches = loader.num_skipped_sketches
                gradient_norm = self.train_step(packed, loaded)
                meter.count(packed.num_points)
                if state.step % every.log_every == 0:
                    self._log_training(gradient_norm, {**meter.read(), **loader.counts()})
                best = self.validate_if_due()
                if best is not None or state.step % every.checkpoint_every == 0:
                    self.save(best)
            self.loggers.flush()
            self.checkpoints.save_at_last()
        logger.info(self._farewell())

    def train_step(self, packed: PackedBatch, loaded: Any) -> Tensor:
        """Train on this rank's share of a global batch; skip the update if the loss or gradient is not finite.

        Args:
            packed: this rank's share of the global batch.
            loaded: output of `Prepare.load` for the share.

        Returns:
            The global gradient norm before clipping, 0-dimensional.

        Raises:
            TrainingError: if more than train.bad_steps consecutive steps are not finite.
            UnreachableError: if writing a checkpoint takes longer than train.timeout.
        """
        state = self.state
        rate = learning_rate(self.config.optimizer, state.step)
        failpoint("step", state.step + 1)
        self.engine.model.begin_step(state.step)
        losses, gradient_norm = self.engine.backward(self.prepare(loaded, self.group.device))
        state.step += 1
        own = [float(term) for term in losses]
        if failpoint("loss", state.step):
            own[-1] = float("nan")
        sums = self._agree(own)
        if math.isfinite(sums[-1] + float(gradient_norm)):
            state.num_bad_steps = 0
            state.window.add(dict(zip(losses._fields, sums, strict=True)), self.config.train.global_batch)
            self.engine.update(rate)
        else:
            self.engine.discard()
            self._note_bad_step(own[-1], float(gradient_norm), packed)
        return gradient_norm

    def _agree(self, losses: list[float]) -> list[float]:
        """Sum the losses over the ranks; in the same all-reduce, agree on stop signals and overdue checkpoints."""
        flags = [float(self._stop.is_set()), float(self.checkpoints.is_overdue)]
        *sums, stops, overdue = self.group.sum([*losses, *flags])
        self.is_stopped = stops > 0
        if overdue:
            self.checkpoints.refuse_overdue()
        return sums

    def _note_bad_step(self, loss: float, gradient_norm: float, packed: PackedBatch) -> None:
        """Record the sketches of a skipped step, and raise after too many consecutive ones."""
        run_dir, state, most = self.config.train.run, self.state, self.config.train.bad_steps
        write_bad_step(run_dir, state.step, loss, gradient_norm, packed.key_id, self.group)
        state.num_bad_steps += 1
        state.num_skipped_steps += 1
        if state.num_bad_steps > most:
            error = TrainingError(
                f"the loss or gradient of step {state.step} is not finite, after {most} consecutive non-finite steps "
                f"were skipped; their sketches are listed in {run_dir}/{BAD_STEPS}; lower optimizer.learning_rate and "
                "start again in another run folder (train.run)"
            )
            raise self.group.told_once(error)
        if self.group.rank == 0:
            logger.warning(
                "skipping step %d: its loss or gradient is not finite (see %s/%s)", state.step, run_dir, BAD_STEPS
            )

    def _loader(self) -> Loader:
        config, state = self.config, self.state
        loader = Loader(
            config.data,
            self.manifest,
            self.group,
            seed=config.train.seed,
            global_batch=config.train.global_batch,
            step=state.step,
            load=self.prepare.load,
            skipped_shards=state.skipped_shards,
            patience=config.train.timeout,
        )
        loader.num_skipped_sketches = state.num_skipped_sketches
        return loader

    def _log_training(self, gradient_norm: Tensor, performance: Record) -> None:
        """Log the mean losses since the last record, and start a new window."""
        state = self.state
        *others, total = self.engine.model.loss_names
        losses = {name: state.window.mean(term) for name, term in zip(["loss", *others], [total, *others], strict=True)}
        step = {
            "skipped_steps": state.num_skipped_steps,
            "gradient_norm": float(gradient_norm),
            "learning_rate": learning_rate(self.config.optimizer, state.step - 1),
        }
        self.loggers.log({"step": state.step, "event": "train", **losses, **step, **performance})
        state.window = LossWindow()

    # Validate.

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or validation has not improved for train.patience validations."""
        return self.state.is_finished(self.config.train.num_steps, self.config.train.patience)

    def validate_if_due(self) -> float | None:
        """Validate if the configuration asks for it at this step, and log the losses and the gallery.

        A validation interrupted by a stop is discarded; the resumed run repeats it.

        Returns:
            The validation loss if this step's weights should be saved as the best; else None.
        """
        state, step, train = self.state, self.state.step, self.config.train
        interval = train.validation_interval(self.manifest.splits["train"].num_sketches)
        is_due = step > 0 and (step % interval == 0 or step == train.num_steps)
        if not is_due or state.validated_step == step:
            # A run branched off from another run's best checkpoint has the best weights, but not in its own folder.
            return state.best_loss if state.best_step == step and self._is_best_lost else None
        with self.engine.whole_model() as model:
            losses = self.validation(model, self._stop.is_set)
            pictures: dict[str, bytes] = {}
            if losses is not None and self.gallery is not None and self.group.rank == 0:
                pictures = self.gallery.draw(model, self.group.device)
        if losses is None:
            self.is_stopped = True
            return None
        loss, is_best_lost = losses["loss"], self._is_best_lost
        is_new_best = loss < state.best_loss
        if is_new_best:
            state.best_loss, state.best_step, state.num_bad_validations = loss, step, 0
        else:
            state.num_bad_validations += 1
        state.validated_step = step
        best = {"best_loss": state.best_loss, "best_step": state.best_step}
        self.loggers.log({"step": step, "event": "validation", **losses, **best})
        for name, png in pictures.items():
            self.loggers.show(name, step, png)
        # If the best weights are lost, keep the best of the remaining ones.
        is_kept = is_new_best or (is_best_lost and loss < self.checkpoints.best_kept())
        return loss if is_kept else None

    # Save.

    @property
    def _is_best_lost(self) -> bool:
        """Whether the best weights are neither committed nor waiting in memory."""
        best = self.state.best_step
        return best not in (None, self.state.saved_best_step) and not self.checkpoints.holds(best)

    def save(self, best: float | None = None) -> None:
        """Start saving a checkpoint of this step; it is written while training continues.

        Args:
            best: validation loss of the weights if they are the best; else None.
        """
        failpoint("save", self.state.step)
        # A run that resumes from this checkpoint needs all records up to this step.
        self.loggers.flush()
        self.checkpoints.save(best)

    def _farewell(self) -> str:
        state, every = self.state, self.config.train
        if self.is_stopped:
            return f"stopped by a signal at step {state.step}; run the same command again to resume"
        reason = "all steps are done" if state.step >= every.num_steps else "validation no longer improves"
        best = f"best validation loss {state.best_loss:.4f} at step {state.best_step}"
        if self._is_best_lost:
            saved = f"{state.saved_best_loss:.4f} at step {state.saved_best_step}" if state.saved_best_step else "none"
            best += f", whose weights are lost; best saved weights: {saved}"
        return f"finished at step {state.step}, {reason}; {best}, in {every.run}"
