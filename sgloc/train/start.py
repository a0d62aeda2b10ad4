"""Where a run starts: at its own checkpoint, at another run's, or anew, also from the weights of a trained model."""

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
    """See whether a run may start, before anything of it is written. On rank 0 only.

    Args:
        config: of the run.
        resume: see `checkpoints_to_resume`.
        data: manifest of its shards.
        model: of the run.

    Returns:
        Whose weights the run started from at its very first start, empty for nobody's; and those, by name in the model,
        where this is that start.

    Raises:
        ConfigError: if both `resume` and `train.init_from` name a checkpoint.
        CheckpointError: if either cannot be used for this run.
    """
    run_dir, init_from = config.train.run, config.train.init_from
    if init_from and resume not in ("auto", "never"):
        raise ConfigError("--init_from starts a new run from weights, --resume goes on with a run; give one of them")
    folders = checkpoints_to_resume(run_dir, resume)
    # That of any of a run's checkpoints says what run it is.
    found = first_whole(folders, read_manifest, logging.DEBUG)
    if found is None:
        return init_from, trained_weights(init_from, model) if init_from and not folders else None
    refuse_other_run(*found, config, data)
    before = str(found[1].config.get("train", {}).get("init_from", ""))
    if init_from and recorded_place(init_from) != before:
        raise CheckpointError(
            f"{run_dir} was started {f'from {before}' if before else 'anew'}, not from {init_from}; leave "
            "--init_from out to go on with it, or give another --train.run"
        )
    return before, None


def trained_weights(path: str, model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of a trained model, which fit another one.

    Args:
        path: folder or URL of a checkpoint; of a run, of which the best checkpoint is taken; or of an exported model.
        model: that they have to fit.

    Raises:
        CheckpointError: if there is no whole model there, or it does not fit; it names the tensors.
    """
    if Storage(path).exists(EXPORTED_WEIGHTS):
        weights = read_exported_weights(path)
    else:
        _, weights = use_checkpoint(path, lambda folder: read_weights(folder, read_manifest(folder)))
    refuse_other_tensors(path, weights, model.state_dict())
    return weights


def has_finished(run_dir: str) -> bool:
    """Whether a run, by its newest whole checkpoint, has nothing left to do.

    Args:
        run_dir: the run's folder or URL.
    """
    newest = newest_checkpoint(run_dir)
    if newest is None:
        return False
    manifest = read_manifest(newest)
    options = manifest.config["train"]
    return _state(newest, manifest).is_finished(options["num_steps"], options["patience"])


def checkpoints_to_resume(run_dir: str, resume: str, level: int = logging.WARNING) -> list[str]:
    """The folders of the checkpoints to go on from, of which the first that is whole is to be taken; none to start
    anew.

    Args:
        run_dir: the run's folder or URL.
        resume: "auto": the run's newest whole checkpoint, if it has any. "never": none. Else a checkpoint's or a run's
            folder to start from; once the run has checkpoints of its own, they win, so that a requeued job may keep its
            command.
        level: at which skipped checkpoints are logged.

    Raises:
        CheckpointError: if what was asked for is not there or damaged, or would leave work of this run behind.
    """
    own = checkpoint_folders(run_dir)
    if resume == "never" and own:
        raise CheckpointError(
            f"{run_dir} already holds checkpoints, which --resume never would overwrite; give another --train.run"
        )
    if resume in ("auto", "never"):
        return own
    if own:
        if _is_other_of(resume, own[0]):
            read_checkpoint(resume)
            # It may be gone on from if what is newer is damaged.
            newest = newest_checkpoint(run_dir, level)
            if newest is not None and _is_other_of(resume, newest):
                raise CheckpointError(
                    f"{run_dir} has a newer checkpoint than {resume}; to branch off from there, give another "
                    "--train.run"
                )
        return own
    if is_checkpoint(resume):
        read_checkpoint(resume)
        return [resume]
    newest = newest_checkpoint(resume, level)
    if newest is None:
        raise CheckpointError(
            f"{resume} holds no whole checkpoint; give a run's folder or one of its checkpoints/step-*"
        )
    return [newest]


def _is_other_of(path: str, newest: str) -> bool:
    """Whether a path is another checkpoint of the same run."""
    root, newest_root = Storage(path).root, Storage(newest).root
    return root != newest_root and root.rsplit("/", 1)[0] == newest_root.rsplit("/", 1)[0]


def refuse_other_run(folder: str, checkpoint: CheckpointManifest, config: RunConfig, manifest: Manifest) -> None:
    """Refuse to go on from a checkpoint of a run that computes something else.

    Raises:
        CheckpointError: naming the options that differ, or the data.
    """
    ours, theirs = identity(config), recorded_identity(checkpoint.config, type(config))
    recorded, differing = flat(checkpoint.config), []
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            since = "" if name in recorded else " (from before there was a choice)"
            differing.append(f"{name} = {theirs.get(name)}{since}, this one {ours.get(name)}")
    anew = f"or start a new run from its weights: --init_from {folder} and another --train.run"
    if differing:
        values = "that value" if len(differing) == 1 else "those values"
        raise CheckpointError(
            f"checkpoint {folder} is of another run: it has {'; '.join(differing)}; give {values}; {anew}"
        )
    if checkpoint.data_identity != manifest.identity:
        raise CheckpointError(
            f"checkpoint {folder} was trained on other shards than {config.data.path}; give those; {anew}"
        )


def resume_from(
    folders: list[str], engine: Engine, config: RunConfig, data: Manifest, group: Group
) -> tuple[TrainState, str | None]:
    """Bring a run to where the first whole one of some checkpoints left it. All ranks must call it together.

    Every file is read once: a checkpoint that turns out to be damaged halfway is overwritten by the next one.

    Args:
        folders: the checkpoints'; none to start anew.
        engine: of the run, fresh.
        config: of the run.
        data: manifest of its shards.
        group: of the ranks, on host memory.

    Returns:
        The rest of the run's state, and the checkpoint's folder.

    Raises:
        CheckpointError: on every rank, if none is whole, or one is of another run or model, or cannot be reached.
    """
    if not folders:
        return TrainState(), None
    level = logging.WARNING if group.rank == 0 else logging.DEBUG
    found = first_whole(folders, lambda folder: _restore(folder, engine, config, data, group), level)
    if found is None:
        run_dir = config.train.run
        error = CheckpointError(
            f"none of the {len(folders)} checkpoints in {run_dir} is whole; restore one, or give another --train.run"
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
    """The step and validation loss of the best checkpoint in a run's folder; None and infinity if there is none.

    Args:
        run_dir: the run's folder or URL.
        state: of the run, as it is resumed.
    """
    known = ((state.best_step, state.best_loss), (state.saved_best_step, state.saved_best_loss))
    there = [(step, loss) for step, loss in known if step is not None and is_checkpoint(step_folder(run_dir, step))]
    step, loss = there[0] if there else (None, float("inf"))
    if step != state.best_step != state.step:
        missing = missing_best(run_dir, state.best_step, state.best_loss)
        logger.warning("%s; from now on, the best of what follows is kept", missing)
    return step, loss


def _state(folder: str, manifest: CheckpointManifest) -> TrainState:
    try:
        # Null stands for what is None or infinite until something is measured.
        state = {name: value for name, value in manifest.state.items() if value is not None}
        return TrainState(**{**state, "window": LossWindow(**state["window"])})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the state in {folder} is not this program's ({error})") from error
