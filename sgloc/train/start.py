"""How a run starts: from its own checkpoint, from another run's, from pretrained weights, or from scratch."""

import logging

from torch import Tensor, nn

from sgloc.config import RunConfig, flat, identity, recorded_identity
from sgloc.data.manifest import Manifest
from sgloc.dist import Group
from sgloc.errors import CheckpointError, ConfigError
from sgloc.storage import Storage
from sgloc.train.checkpoint.format import CheckpointManifest, read_manifest, step_folder
from sgloc.train.checkpoint.load import (
    EXPORTED_WEIGHTS,
    checkpoint_folders,
    first_whole,
    is_checkpoint,
    missing_best,
    newest_checkpoint,
    read_checkpoint,
    read_exported_weights,
    read_weights,
    refuse_other_tensors,
    spread_tensors,
    use_checkpoint,
)
from sgloc.train.engine import Engine
from sgloc.train.record import recorded_place
from sgloc.train.state import LossWindow, TrainState

logger = logging.getLogger(__name__)


def find_start(
    config: RunConfig, resume: str, data: Manifest, model: nn.Module
) -> tuple[str, dict[str, Tensor] | None]:
    """Check that a run may start, before anything is written to its folder. Call on rank 0 only.

    Args:
        config: configuration of the run.
        resume: see `checkpoints_to_resume`.
        data: manifest of the run's shards.
        model: the run's model.

    Returns:
        The model whose weights initialized the run at its very first start, as a path, empty if none; and those
        weights by parameter name if this is the very first start, else None.

    Raises:
        ConfigError: if both `resume` and `train.init_from` name a checkpoint.
        CheckpointError: if either cannot be used for this run.
    """
    run_dir, init_from = config.train.run, config.train.init_from
    if init_from and resume not in ("auto", "never"):
        raise ConfigError("init_from starts a new run from weights, resume continues a run; set only one of them")
    folders = checkpoints_to_resume(run_dir, resume)
    # Any checkpoint's manifest identifies the run, so the first readable one will do.
    found = first_whole(folders, read_manifest, logging.DEBUG)
    if found is None:
        return init_from, trained_weights(init_from, model) if init_from and not folders else None
    refuse_other_run(*found, config, data)
    before = str(found[1].config.get("train", {}).get("init_from", ""))
    if init_from and recorded_place(init_from) != before:
        raise CheckpointError(
            f"{run_dir} was started {f'from {before}' if before else 'from scratch'}, not from {init_from}; unset "
            "init_from to continue it, or choose another run folder (train.run)"
        )
    return before, None


def trained_weights(path: str, model: nn.Module) -> dict[str, Tensor]:
    """Read the weights and buffers of a trained model, and check that they match another model's.

    Args:
        path: folder or URL of a checkpoint, of a run (its best checkpoint is used), or of an exported model.
        model: the model that they must match.

    Raises:
        CheckpointError: if there is no intact model at the path, or its tensors do not match; names the tensors.
    """
    if Storage(path).exists(EXPORTED_WEIGHTS):
        weights = read_exported_weights(path)
    else:
        _, weights = use_checkpoint(path, lambda folder: read_weights(folder, read_manifest(folder)))
    refuse_other_tensors(path, weights, model.state_dict())
    return weights


def has_finished(run_dir: str) -> bool:
    """Return whether a run has finished training, according to its newest intact checkpoint.

    Args:
        run_dir: folder or URL of the run.
    """
    newest = newest_checkpoint(run_dir)
    if newest is None:
        return False
    manifest = read_manifest(newest)
    options = manifest.config["train"]
    return _state(newest, manifest).is_finished(options["num_steps"], options["patience"])


def checkpoints_to_resume(run_dir: str, resume: str, level: int = logging.WARNING) -> list[str]:
    """Return the folders of the checkpoints to resume from, in order of preference; empty to start from scratch.

    The caller uses the first intact one.

    Args:
        run_dir: folder or URL of the run.
        resume: "auto": the run's newest intact checkpoint, if any. "never": none. Otherwise the folder of a checkpoint
            or run to start from; once this run has checkpoints of its own, they take precedence, so that a requeued
            job can keep its command.
        level: logging level for skipped checkpoints.

    Raises:
        CheckpointError: if the requested checkpoint is missing or damaged, or resuming from it would discard progress
            of this run.
    """
    own = checkpoint_folders(run_dir)
    if resume == "never" and own:
        raise CheckpointError(
            f"{run_dir} already holds checkpoints, which resume 'never' would overwrite; choose another run folder "
            "(train.run)"
        )
    if resume in ("auto", "never"):
        return own
    if own:
        if _is_other_of(resume, own[0]):
            read_checkpoint(resume)
            # An older checkpoint may be named if every newer one is damaged.
            newest = newest_checkpoint(run_dir, level)
            if newest is not None and _is_other_of(resume, newest):
                raise CheckpointError(
                    f"{run_dir} has a newer checkpoint than {resume}; to branch off from that one, choose another run "
                    "folder (train.run)"
                )
        return own
    if is_checkpoint(resume):
        read_checkpoint(resume)
        return [resume]
    newest = newest_checkpoint(resume, level)
    if newest is None:
        raise CheckpointError(
            f"{resume} holds no intact checkpoint; pass a run folder or one of its checkpoints/step-*"
        )
    return [newest]


def _is_other_of(path: str, newest: str) -> bool:
    """Return whether a path is a different checkpoint of the same run."""
    root, newest_root = Storage(path).root, Storage(newest).root
    return root != newest_root and root.rsplit("/", 1)[0] == newest_root.rsplit("/", 1)[0]


def refuse_other_run(folder: str, checkpoint: CheckpointManifest, config: RunConfig, manifest: Manifest) -> None:
    """Refuse to resume from a checkpoint of a run with a different identity.

    Raises:
        CheckpointError: if options that determine the result, or the shards, differ; names the options.
    """
    ours, theirs = identity(config), recorded_identity(checkpoint.config, type(config))
    recorded, differing = flat(checkpoint.config), []
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            since = "" if name in recorded else " (it predates this option)"
            differing.append(f"{name} = {theirs.get(name)}{since}, this run {ours.get(name)}")
    anew = f"or start a new run from its weights: set init_from to {folder} and choose another run folder (train.run)"
    if differing:
        values = "that value" if len(differing) == 1 else "those values"
        raise CheckpointError(
            f"checkpoint {folder} belongs to another run: it has {'; '.join(differing)}; set {values}, {anew}"
        )
    if checkpoint.data_identity != manifest.identity:
        raise CheckpointError(
            f"checkpoint {folder} was trained on other shards than {config.data.path}; use the original shards, {anew}"
        )


def resume_from(
    folders: list[str], engine: Engine, config: RunConfig, data: Manifest, group: Group
) -> tuple[TrainState, str | None]:
    """Restore a run from the first intact checkpoint in a list. Collective.

    Every file is read only once: if a checkpoint turns out to be damaged halfway, the next one overwrites what was
    restored from it.

    Args:
        folders: the checkpoints in order of preference; empty to start from scratch.
        engine: the run's engine, freshly built.
        config: configuration of the run.
        data: manifest of the run's shards.
        group: group of the ranks, on host memory.

    Returns:
        The training state, and the folder of the checkpoint it was restored from; a new state and None if `folders` is
        empty.

    Raises:
        CheckpointError: on every rank, if no checkpoint is intact, or one belongs to another run or model or is
            unreachable.
    """
    if not folders:
        return TrainState(), None
    level = logging.WARNING if group.rank == 0 else logging.DEBUG
    found = first_whole(folders, lambda folder: _restore(folder, engine, config, data, group), level)
    if found is None:
        run_dir = config.train.run
        error = CheckpointError(
            f"none of the {len(folders)} checkpoints in {run_dir} is intact; restore one, or choose another run folder "
            "(train.run)"
        )
        raise group.told_once(error)
    folder, state = found
    return state, folder


def _restore(folder: str, engine: Engine, config: RunConfig, data: Manifest, group: Group) -> TrainState:
    def check() -> tuple[CheckpointManifest, TrainState]:
        manifest = read_manifest(folder)
        refuse_other_run(folder, manifest, config, data)
        return manifest, _state(folder, manifest)

    manifest, state = group.on_rank_0(check)
    engine.restore(spread_tensors(folder, manifest, engine.layout(), group))
    return state


def saved_best(run_dir: str, state: TrainState) -> tuple[int | None, float]:
    """Return the step and validation loss of the best checkpoint in a run folder; None and infinity if there is none.

    Args:
        run_dir: folder or URL of the run.
        state: the run's state, as resumed.
    """
    known = ((state.best_step, state.best_loss), (state.saved_best_step, state.saved_best_loss))
    there = [(step, loss) for step, loss in known if step is not None and is_checkpoint(step_folder(run_dir, step))]
    step, loss = there[0] if there else (None, float("inf"))
    if step != state.best_step != state.step:
        missing = missing_best(run_dir, state.best_step, state.best_loss)
        logger.warning("%s; the best checkpoint from here on will be kept", missing)
    return step, loss


def _state(folder: str, manifest: CheckpointManifest) -> TrainState:
    try:
        # Null stands for a field's default: None, or an infinite loss, which JSON cannot express.
        state = {name: value for name, value in manifest.state.items() if value is not None}
        return TrainState(**{**state, "window": LossWindow(**state["window"])})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the training state in {folder} does not match this program's ({error})") from error
