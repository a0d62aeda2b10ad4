"""Opening a run: everything that the loop works with, built fresh or as a checkpoint left it."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import fsspec.core
import torch
import yaml

from sgloc import dist
from sgloc.config import RunConfig
from sgloc.data.loader import read_options
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.data.reader import ShardReader
from sgloc.data.threads import PATIENT_SHARE, Patience
from sgloc.errors import ConfigError, DataError
from sgloc.storage import only_writer
from sgloc.strict_json import to_json
from sgloc.tf32 import float32_products
from sgloc.train.checkpoint import Peers, step_folder
from sgloc.train.consistency import refuse_other_ranks
from sgloc.train.engine import open_engine, prepare_engine
from sgloc.train.initial import find_start
from sgloc.train.loggers.open import close_loggers, open_loggers, with_environment
from sgloc.train.loggers.protocol import Logger
from sgloc.train.loggers.terminal import tell
from sgloc.train.recipe import Prepare, Recipe
from sgloc.train.recorded import recorded_options
from sgloc.train.resume import checkpoints_to_resume, resume_from, saved_best
from sgloc.train.saving import Saving
from sgloc.train.session import Session
from sgloc.train.signals import StopFlag
from sgloc.train.validate import Validation
from sgloc.train.versions import versions

Value = TypeVar("Value")


def _write_config(config: RunConfig) -> None:
    """Write the resolved configuration and the versions beside the run."""
    try:
        file_system, root = fsspec.core.url_to_fs(config.train.run)
        file_system.makedirs(root, exist_ok=True)
        file_system.pipe_file(f"{root}/config.yaml", yaml.safe_dump(recorded_options(config), sort_keys=False).encode())
        file_system.pipe_file(f"{root}/versions.json", (to_json(versions(), indent=1) + "\n").encode())
    except OSError as error:
        raise ConfigError(
            f"cannot write to {config.train.run} ({error}); give a --train.run that can be written"
        ) from error


def _load_data(config: RunConfig, placement: dist.Placement) -> Manifest:
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
def open_session(config: RunConfig, resume: str, recipe: Recipe) -> Iterator[Session]:
    """Build a run, or rebuild it as its checkpoint left it; inside, signals only set the stop flag.

    Args:
        config: of the run.
        resume: see `checkpoints_to_resume`.
        recipe: of the model.

    Raises:
        SglocError: if the configuration, the shards or the checkpoint cannot be used.
    """
    placement = dist.resolve_placement(os.environ)
    device = dist.select_device(config.train.device, placement)
    stop = StopFlag()
    with contextlib.ExitStack() as stack:
        stack.enter_context(float32_products(device, config.train.tf32))
        # Before anything else might take the first GPU.
        dist.use_device(device)
        prepare_engine(config, device)
        # To the end of the group: the launcher ends ranks whose partner is gone, and they have something to say first.
        stack.enter_context(stop.listening())
        stack.enter_context(dist.process_group(placement, device, config.train.timeout))
        limit = PATIENT_SHARE * config.train.timeout
        of_data = Patience(limit, f"the store of {config.data.path}")
        manifest = dist.on_each_rank(lambda: of_data(lambda: _load_data(config, placement)))
        refuse_other_ranks(config, manifest, versions())
        log = dist.on_rank_0(lambda: with_environment(config.log, os.environ))
        config = dataclasses.replace(config, log=log)
        preparation, fixed = dist.on_each_rank(lambda: recipe.preparations(config, manifest))
        model = recipe.build_model(config, manifest).to(device)
        # Asked twice: before the folder is touched, and for good once nobody else can write to it.
        ask = Patience(limit, f"the store of {config.train.run}")

        def from_rank_0(action: Callable[[], Value]) -> Value:
            return dist.on_rank_0(lambda: ask(action))

        start = from_rank_0(lambda: find_start(config, resume, manifest, model, tell))
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=start.init_from))
        if start.weights is not None:
            model.load_state_dict(start.weights)
        claim = from_rank_0(lambda: stack.enter_context(only_writer(config.train.run)))
        folders = from_rank_0(lambda: checkpoints_to_resume(config.train.run, resume, lambda _: None))
        peers = Peers(config.train.timeout)
        stack.callback(peers.close)
        loggers: list[Logger] = []
        # After the last checkpoint is written: W&B may take its time.
        stack.callback(close_loggers, loggers)
        engine = open_engine(model, config, device, placement.world_size)
        stack.callback(engine.close)
        state, folder = resume_from(folders, engine, config, manifest, peers, tell)
        is_own = folder == step_folder(config.train.run, state.step)
        if not is_own:
            # A branch of another run must not go on with that one's curves.
            state.wandb_id = None
        saved_step = state.step if is_own else None
        there = from_rank_0(lambda: saved_best(config.train.run, state, tell))
        state.saved_best_step, state.saved_best_loss = there
        saving = Saving(
            config,
            manifest,
            engine,
            peers,
            saved_step,
            say=tell,
            check=claim.check,
            is_stopped=lambda: stop.requested,
            device=device,
        )
        stack.callback(saving.close)
        validation = _validation(config, manifest, fixed, placement)
        session = Session(
            config=config,
            placement=placement,
            device=device,
            manifest=manifest,
            engine=engine,
            recipe=recipe,
            prepare=preparation,
            validation=validation,
            state=state,
            saving=saving,
            stop=stop,
            gallery=recipe.gallery(config, validation.reader, manifest),
            loggers=loggers,
        )
        if session.is_best_lost and state.best_step == state.step:
            # Of a run that branches off from the best checkpoint of another.
            session.kept_loss = state.best_loss
        from_rank_0(lambda: _write_config(config))
        state.wandb_id = from_rank_0(lambda: open_loggers(loggers, config, state.step, state.wandb_id))
        session.say(_greeting(session, folder, is_initialised=start.weights is not None))
        yield session


def _validation(config: RunConfig, manifest: Manifest, prepare: Prepare, placement: dist.Placement) -> Validation:
    options = read_options(config.data, placement.rank, config.train.timeout)
    reader = ShardReader(config.data.path, manifest, "valid", options=options)
    batch_size = -(-config.train.global_batch // (placement.world_size * config.train.accumulation))
    where = (placement.rank, placement.world_size, config.data.bad_shards)
    return Validation(reader, prepare, config.data.validation_limit, batch_size, *where)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _greeting(session: Session, folder: str | None, *, is_initialised: bool) -> str:
    anew = f"starting anew from the weights of {session.config.train.init_from}" if is_initialised else "starting anew"
    placement, manifest = session.placement, session.manifest
    # The model itself may be in parts.
    num_parameters = sum(
        tensor.numel() for name, tensor in session.engine.layout().items() if name.endswith(".exp_avg")
    )
    num_drawings, num_categories = manifest.splits["train"].num_sketches, len(manifest.categories)
    return (
        f"{f'resuming from {folder}' if folder else anew} in {session.config.train.run}: "
        f"{session.engine.name} over {dist.backend(session.device)}, {placement.world_size} process(es) by "
        f"{placement.launcher} on {placement.num_nodes} node(s), {_device_name(session.device)}, "
        f"{num_parameters:,} parameters, {num_drawings:,} training drawings of {num_categories} categories"
    )
