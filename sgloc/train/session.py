"""A run in progress: everything the loop works with, built fresh or as a checkpoint left it."""

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec.core
import numpy as np
import torch
import yaml
from torch import Tensor

import sgloc
from sgloc import dist
from sgloc.config import Config, identity
from sgloc.data.batch import Preparation
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.data.reader import ShardReader
from sgloc.data.stream import Share
from sgloc.errors import CheckpointError, ConfigError, DataError, TrainingError
from sgloc.nn.sketchgloc import LossSums, SketchGloc
from sgloc.train.checkpoint import (
    CheckpointManifest,
    load_tensors,
    read_checkpoint,
    refuse_other_tensors,
    save_checkpoint,
)
from sgloc.train.engine import DDPEngine, Engine
from sgloc.train.feed import Feed, read_options
from sgloc.train.lock import only_writer
from sgloc.train.metrics import JSONLines, Logger, Record, Terminal, WeightsAndBiases
from sgloc.train.resume import checkpoint_to_resume, refuse_other_run
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

    def account(self, losses: LossSums, gradient_norm: Tensor) -> bool:
        """Add a step's losses of all ranks to the window, and agree on whether to stop: some rank was asked to.

        Raises:
            TrainingError: if the loss or the gradient's norm, which is the same on all ranks, is not finite.
        """
        numbers = [*(float(term) for term in losses), float(self.stop.requested)]
        mixture, pen, divergence, total, stops = dist.sum_over_ranks(numbers, self.device)
        if not np.isfinite(total + float(gradient_norm)):
            error = TrainingError(
                f"the loss of step {self.state.step} is {total}, its gradient's norm {float(gradient_norm)}; "
                "lower optimizer.learning_rate and start again, in another --train.run_dir"
            )
            # All ranks see the same numbers and come here together.
            error.told = self.placement.rank != 0
            raise error
        window = self.state.window
        window.num_sketches += self.config.train.global_batch
        window.mixture += mixture
        window.pen += pen
        window.divergence += divergence
        window.total += total
        return stops > 0

    def log(self, event: str, record: Record) -> None:
        """Give a record of this step to every logger."""
        for logger in self.loggers:
            logger.log({"step": self.state.step, "event": event, **record})

    def log_training(self, gradient_norm: Tensor, learning_rate: float, performance: Record) -> None:
        """Log the losses since the last such line, averaged, with the last step's gradient norm, and start a new
        window."""
        window = self.state.window
        means = {
            "loss": window.total / window.num_sketches,
            "mixture": window.mixture / window.num_sketches,
            "pen": window.pen / window.num_sketches,
            "divergence": window.divergence / window.num_sketches,
        }
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
        """Commit a checkpoint of this step."""
        options = dataclasses.asdict(self.config)
        manifest = CheckpointManifest(
            step=self.state.step,
            world_size=self.placement.world_size,
            global_batch=self.config.train.global_batch,
            config=options,
            config_hash=hashlib.sha256(json.dumps(identity(options)).encode()).hexdigest(),
            data_identity=self.manifest.identity,
            scale=self.manifest.scale,
            longest_points=self.manifest.longest_points,
            state=dataclasses.asdict(self.state),
            versions=versions(),
            files={},
        )
        save_checkpoint(
            self.config.train.run_dir,
            manifest,
            self.engine.tensors(),
            keep=self.config.train.keep_checkpoints,
            best_step=self.state.best_step,
        )

    def say(self, sentence: str) -> None:
        """Tell the user, once for all ranks."""
        if self.placement.rank == 0:
            Terminal(self.config.train.num_steps).console.print(sentence, soft_wrap=True)


def versions() -> dict[str, str]:
    """Versions of what computes, and the git revision of the program where it is known."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown"
    return {
        "sgloc": sgloc.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "git": revision,
    }


def build_model(config: Config, longest_points: int) -> SketchGloc:
    """A model with the initial weights of the configured seed; the same on every rank and every start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return SketchGloc(config.model, config.loss, longest_points)


def _restore(engine: Engine, folder: str, config: Config, manifest: Manifest) -> TrainState:
    """Bring the engine to where a checkpoint left it."""
    checkpoint = read_checkpoint(folder, verify=False)
    tensors = engine.tensors()

    def check() -> TrainState:
        refuse_other_run(folder, checkpoint, config, manifest)
        refuse_other_tensors(folder, checkpoint, tensors)
        try:
            return TrainState(**{**checkpoint.state, "window": LossWindow(**checkpoint.state["window"])})
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the state in {folder} is not this program's ({error})") from error

    state = dist.on_rank_0(check)
    load_tensors(folder, checkpoint, tensors)
    return state


def _write_config(config: Config) -> None:
    """Write the resolved configuration and the versions beside the run."""
    try:
        file_system, root = fsspec.core.url_to_fs(config.train.run_dir)
        file_system.makedirs(root, exist_ok=True)
        file_system.pipe_file(
            f"{root}/config.yaml", yaml.safe_dump(dataclasses.asdict(config), sort_keys=False).encode()
        )
        file_system.pipe_file(f"{root}/versions.json", (json.dumps(versions(), indent=1) + "\n").encode())
    except OSError as error:
        raise ConfigError(
            f"cannot write to {config.train.run_dir} ({error}); give a --train.run_dir that can be written"
        ) from error


def _open_loggers(config: Config, state: TrainState) -> list[Logger]:
    """Rank 0's loggers; W&B's id goes into the state."""
    loggers: list[Logger] = [JSONLines(config.train.run_dir, state.step), Terminal(config.train.num_steps)]
    if config.log.wandb != "disabled":
        wandb = WeightsAndBiases(config, dataclasses.asdict(config), state.wandb_id)
        state.wandb_id = wandb.run_id
        loggers.append(wandb)
    return loggers


def _load_data(config: Config, placement: dist.Placement) -> Manifest:
    """The manifest of shards that fit the configuration."""
    if not config.data.path:
        raise ConfigError("data.path is not set; give the folder of shards that `sgloc shard` wrote")
    if config.train.global_batch < placement.world_size:
        raise ConfigError(
            f"train.global_batch is {config.train.global_batch}, "
            f"but there are {placement.world_size} processes; each needs a drawing"
        )
    manifest = load_manifest(config.data.path)
    if manifest.splits["valid"].num_sketches == 0:
        raise DataError(f"{config.data.path} holds no validation drawing; build the shards from more drawings")
    return manifest


@contextlib.contextmanager
def open_session(config: Config, resume: str) -> Iterator[Session]:
    """Build a run, or rebuild it as its checkpoint left it; inside, signals only set the stop flag.

    Args:
        config: of the run.
        resume: see `checkpoint_to_resume`.

    Raises:
        SglocError: if the configuration, the shards or the checkpoint cannot be used.
    """
    placement = dist.resolve_placement(os.environ)
    device = dist.select_device(config.train.device, placement)
    stop = StopFlag()
    with contextlib.ExitStack() as stack:
        stack.enter_context(dist.process_group(placement, device))
        stack.enter_context(stop.listening())
        console = Terminal(config.train.num_steps).console
        manifest = dist.on_rank_0(lambda: _load_data(config, placement))
        # Asked twice: before the folder is touched, and for good once nobody else can write to it.
        dist.on_rank_0(lambda: checkpoint_to_resume(config.train.run_dir, resume, console.print))
        dist.on_rank_0(lambda: stack.enter_context(only_writer(config.train.run_dir)))
        folder = dist.on_rank_0(lambda: checkpoint_to_resume(config.train.run_dir, resume, lambda _: None))
        engine = DDPEngine(
            build_model(config, manifest.longest_points).to(device), config, device, placement.world_size
        )
        stack.callback(engine.close)
        state = _restore(engine, folder, config, manifest) if folder else TrainState()
        fixed = Preparation(
            scale=manifest.scale,
            seed=config.train.seed,
            disturb_scale=config.data.disturb_scale,
            max_node_points=config.model.max_node_points,
        )
        session = Session(
            config=config,
            placement=placement,
            device=device,
            manifest=manifest,
            engine=engine,
            prepare=dataclasses.replace(
                fixed, augment_scale=config.data.augment_scale, drop_probability=config.data.drop_probability
            ),
            validation=_validation(config, manifest, fixed, placement),
            state=state,
            stop=stop,
            loggers=[],
        )
        dist.on_rank_0(lambda: _write_config(config))
        if placement.rank == 0:
            session.loggers = _open_loggers(config, state)
        for logger in session.loggers:
            stack.callback(logger.close)
        session.say(_greeting(session, folder))
        yield session


def _validation(config: Config, manifest: Manifest, prepare: Preparation, placement: dist.Placement) -> Validation:
    reader = ShardReader(config.data.path, manifest, "valid", options=read_options(config.data, placement.rank))
    batch_size = -(-config.train.global_batch // (placement.world_size * config.train.accumulation))
    where = (placement.rank, placement.world_size, config.data.bad_shards)
    return Validation(reader, prepare, config.data.validation_limit, batch_size, *where)


def _greeting(session: Session, folder: str | None) -> str:
    placement, manifest = session.placement, session.manifest
    num_parameters = sum(parameter.numel() for parameter in session.engine.model.parameters())
    num_drawings, num_categories = manifest.splits["train"].num_sketches, len(manifest.categories)
    return (
        f"{f'resuming from {folder}' if folder else 'starting anew'} in {session.config.train.run_dir}: "
        f"{placement.world_size} process(es) by {placement.launcher} on {session.device.type}, "
        f"{num_parameters:,} parameters, {num_drawings:,} training drawings of {num_categories} categories"
    )
