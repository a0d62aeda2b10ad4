"""Which checkpoint a run goes on from, whether it may, and how it is brought back there."""

from collections.abc import Callable

import fsspec.core

from sgloc.config import RunConfig, flat, identity, recorded_identity
from sgloc.data.manifest import Manifest
from sgloc.errors import CheckpointError
from sgloc.train.checkpoint import (
    CheckpointManifest,
    Peers,
    checkpoint_folders,
    first_whole,
    is_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    read_manifest,
    spread_tensors,
    step_folder,
)
from sgloc.train.checkpoint.finding import missing_best
from sgloc.train.engine import Engine
from sgloc.train.state import LossWindow, TrainState


def has_finished(run_dir: str, say: Callable[[str], None]) -> bool:
    """Whether a run, by its newest whole checkpoint, has nothing left to do.

    Args:
        run_dir: the run's folder or URL.
        say: is told of checkpoints that are skipped.
    """
    newest = newest_checkpoint(run_dir, say)
    if newest is None:
        return False
    manifest = read_manifest(newest)
    options = manifest.config["train"]
    return _state(newest, manifest).is_finished(options["num_steps"], options["patience"])


def checkpoints_to_resume(run_dir: str, resume: str, say: Callable[[str], None]) -> list[str]:
    """The folders of the checkpoints to go on from, of which the first that is whole is to be taken; none to start
    anew.

    Args:
        run_dir: the run's folder or URL.
        resume: "auto": the run's newest whole checkpoint, if it has any. "never": none. Else a checkpoint's or a run's
            folder to start from; once the run has checkpoints of its own, they win, so that a requeued job may keep its
            command.
        say: is told of checkpoints that are skipped.

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
        _refuse_going_back(run_dir, resume, own, say)
        return own
    if is_checkpoint(resume):
        read_checkpoint(resume)
        return [resume]
    newest = newest_checkpoint(resume, say)
    if newest is None:
        raise CheckpointError(
            f"{resume} holds no whole checkpoint; give a run's folder or one of its checkpoints/step-*"
        )
    return [newest]


def _refuse_going_back(run_dir: str, resume: str, own: list[str], say: Callable[[str], None]) -> None:
    """Refuse to go on from a checkpoint of this run that is not its newest."""
    if not _is_other_of(resume, own[0]):
        return
    read_checkpoint(resume)
    # Unless what is newer is damaged.
    newest = newest_checkpoint(run_dir, say)
    if newest is not None and _is_other_of(resume, newest):
        raise CheckpointError(
            f"{run_dir} has a newer checkpoint than {resume}; to branch off from there, give another --train.run"
        )


def _is_other_of(path: str, newest: str) -> bool:
    """Whether a path is another checkpoint of the same run."""
    root: str = fsspec.core.url_to_fs(path)[1]
    newest_root: str = fsspec.core.url_to_fs(newest)[1]
    return root != newest_root and root.rsplit("/", 1)[0] == newest_root.rsplit("/", 1)[0]


def refuse_other_run(folder: str, checkpoint: CheckpointManifest, config: RunConfig, manifest: Manifest) -> None:
    """Refuse to go on from a checkpoint of a run that computes something else.

    Raises:
        CheckpointError: naming the options that differ, or the data.
    """
    ours, theirs = identity(config), recorded_identity(checkpoint.config, type(config))
    recorded = flat(checkpoint.config)
    differing = [name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)]
    if differing:
        said = [
            f"{name} = {theirs.get(name)}{'' if name in recorded else ' (from before there was a choice)'}, "
            f"this one {ours.get(name)}"
            for name in differing
        ]
        values = "that value" if len(differing) == 1 else "those values"
        raise CheckpointError(
            f"checkpoint {folder} is of another run: it has {'; '.join(said)}; "
            f"give {values}; or start a new run from its weights: --init_from {folder} and another --train.run"
        )
    if checkpoint.data_identity != manifest.identity:
        raise CheckpointError(
            f"checkpoint {folder} was trained on other shards than {config.data.path}; "
            f"give those; or start a new run from its weights: --init_from {folder} and another --train.run"
        )


def resume_from(
    folders: list[str], engine: Engine, config: RunConfig, data: Manifest, peers: Peers, say: Callable[[str], None]
) -> tuple[TrainState, str | None]:
    """Bring a run to where the first whole one of some checkpoints left it. All ranks must call it together.

    Every file is read once: a checkpoint that turns out to be damaged halfway is overwritten by the next one.

    Args:
        folders: the checkpoints'; none to start anew.
        engine: of the run, fresh.
        config: of the run.
        data: manifest of its shards.
        peers: the ranks.
        say: is told on rank 0 of checkpoints that are skipped.

    Returns:
        The rest of the run's state, and the checkpoint's folder.

    Raises:
        CheckpointError: on every rank, if none is whole, or one is of another run or model, or cannot be reached.
    """
    if not folders:
        return TrainState(), None
    tell = say if peers.rank == 0 else lambda sentence: None
    found = first_whole(folders, lambda folder: _restore(folder, engine, config, data, peers), tell)
    if found is None:
        run_dir = config.train.run
        error = CheckpointError(
            f"none of the {len(folders)} checkpoints in {run_dir} is whole; restore one, or give another --train.run"
        )
        error.told = peers.rank != 0
        raise error
    folder, state = found
    return state, folder


def _restore(folder: str, engine: Engine, config: RunConfig, data: Manifest, peers: Peers) -> TrainState:
    def check() -> tuple[CheckpointManifest, TrainState]:
        manifest = read_manifest(folder)
        refuse_other_run(folder, manifest, config, data)
        return manifest, _state(folder, manifest)

    manifest, state = peers.from_rank_0(check)
    engine.restore(spread_tensors(folder, manifest, engine.layout(), peers))
    return state


def saved_best(run_dir: str, state: TrainState, say: Callable[[str], None]) -> tuple[int | None, float]:
    """The step and validation loss of the best checkpoint in a run's folder; None and infinity if there is none.

    Args:
        run_dir: the run's folder or URL.
        state: of the run, as it is resumed.
        say: is told if the best of all validations is not there.
    """
    known = ((state.best_step, state.best_loss), (state.saved_best_step, state.saved_best_loss))
    there = [(step, loss) for step, loss in known if step is not None and is_checkpoint(step_folder(run_dir, step))]
    step, loss = there[0] if there else (None, float("inf"))
    if step != state.best_step != state.step:
        say(f"{missing_best(run_dir, state.best_step, state.best_loss)}; from now on, the best of what follows is kept")
    return step, loss


# Infinite until something is measured, for which a manifest has null.
_ENDLESS = frozenset({"best_loss", "saved_best_loss"})


def _state(folder: str, manifest: CheckpointManifest) -> TrainState:
    try:
        state = {name: value for name, value in manifest.state.items() if name not in _ENDLESS or value is not None}
        return TrainState(**{**state, "window": LossWindow(**state["window"])})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the state in {folder} is not this program's ({error})") from error
