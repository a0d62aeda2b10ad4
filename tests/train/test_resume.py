"""Which checkpoint a run goes on from, and which it must not (DESIGN contracts 3 and 4)."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sgloc.config import Config, identity
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.errors import CheckpointError
from sgloc.train.resume import checkpoint_to_resume, refuse_other_run
from tests.checkpoints import make_manifest, model_config, save_steps, single_process, step_path, truncate


@pytest.fixture(scope="module", autouse=True)
def _group() -> Iterator[None]:
    with single_process():
        yield


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 and 2."""
    save_steps(tmp_path / "run", [1, 2])
    return tmp_path / "run"


def resumed(run_dir: Path, resume: object) -> str | None:
    """The checkpoint to go on from; nothing may be skipped."""
    told: list[str] = []
    found = checkpoint_to_resume(str(run_dir), str(resume), told.append)
    assert told == []
    return found


def refuse(run_dir: Path, resume: object, message: str) -> list[str]:
    told: list[str] = []
    with pytest.raises(CheckpointError, match=message):
        checkpoint_to_resume(str(run_dir), str(resume), told.append)
    return told


def test_auto_takes_the_newest_if_there_is_any(run_dir: Path, tmp_path: Path) -> None:
    assert resumed(run_dir, "auto") == str(step_path(run_dir, 2))
    assert resumed(tmp_path / "new", "auto") is None
    assert resumed(Path(f"memory://{tmp_path}"), "auto") is None


def test_never_does_not_run_over_checkpoints(run_dir: Path, tmp_path: Path) -> None:
    assert resumed(tmp_path / "new", "never") is None
    refuse(run_dir, "never", "already holds checkpoints, which --resume never would overwrite")
    truncate(step_path(run_dir, 1) / ".metadata")
    truncate(step_path(run_dir, 2) / ".metadata")
    refuse(run_dir, "never", "already holds checkpoints")


def test_a_damaged_newest_is_skipped_and_named(run_dir: Path) -> None:
    truncate(step_path(run_dir, 2) / ".metadata")
    told: list[str] = []
    assert checkpoint_to_resume(str(run_dir), "auto", told.append) == str(step_path(run_dir, 1))
    assert [str(step_path(run_dir, 2)) in sentence for sentence in told] == [True]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(run_dir: Path) -> None:
    truncate(step_path(run_dir, 1) / ".metadata")
    truncate(step_path(run_dir, 2) / ".metadata")
    assert len(refuse(run_dir, "auto", "none of the 2 checkpoints in .* is whole; restore one")) == 2


def test_a_new_run_starts_from_the_checkpoint_given(run_dir: Path, tmp_path: Path) -> None:
    new, first = tmp_path / "new", step_path(run_dir, 1)
    assert resumed(new, first) == str(first)
    assert resumed(new, run_dir) == str(step_path(run_dir, 2))
    truncate(first / ".metadata")
    refuse(new, first, "is damaged")
    refuse(new, tmp_path / "none", "none holds no whole checkpoint")
    (first / "manifest.json").unlink()
    refuse(new, first, "step-00000001 holds no whole checkpoint")


def test_own_checkpoints_win_over_the_one_given_so_that_a_requeued_job_may_keep_its_command(
    run_dir: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    assert resumed(run_dir, step_path(other, 1)) == str(step_path(run_dir, 2))
    assert resumed(run_dir, tmp_path / "gone") == str(step_path(run_dir, 2))
    assert resumed(run_dir, step_path(run_dir, 2)) == str(step_path(run_dir, 2))
    assert resumed(run_dir, f"{step_path(run_dir, 2)}/") == str(step_path(run_dir, 2))
    assert resumed(run_dir, run_dir) == str(step_path(run_dir, 2))


def test_going_back_to_an_older_checkpoint_of_the_same_run_is_refused(run_dir: Path) -> None:
    refuse(run_dir, step_path(run_dir, 1), "has a newer checkpoint than .*step-00000001; to branch off")


@pytest.fixture(scope="module")
def shards(tiny_shards: str) -> Manifest:
    return load_manifest(tiny_shards)


def changed(config: Config, name: str, value: Any) -> Config:
    """The configuration with the option of this dotted name changed."""

    def change(section: Any, names: list[str]) -> Any:
        first, *rest = names
        return dataclasses.replace(section, **{first: change(getattr(section, first), rest) if rest else value})

    result = change(config, name.split("."))
    assert isinstance(result, Config)
    return result


OTHERS = {
    "data.validation_limit": 7,
    "model.latent_size": 6,
    "model.encoder.cell": "hyper",
    "model.max_node_points": 5,
    "data.disturb_scale": 0.3,
    "loss.kl_weight": 0.5,
    "optimizer.learning_rate": 0.5,
    "train.seed": 7,
    "train.global_batch": 9,
    "train.precision": "bfloat16",
}
FREE = {
    "data.path": "elsewhere",
    "data.prefetch": 7,
    "train.run_dir": "elsewhere",
    "train.num_steps": 7,
    "train.accumulation": 7,
    "train.device": "cpu",
    "train.log_every": 7,
    "train.validate_every": 7,
    "train.patience": 7,
    "train.checkpoint_every": 7,
    "train.keep_checkpoints": 7,
    "log.wandb": "offline",
    "log.wandb_project": "other",
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_and_the_option_named(shards: Manifest, name: str) -> None:
    config = Config(model=model_config())
    theirs = identity(dataclasses.asdict(config))[name]
    with pytest.raises(CheckpointError) as caught:
        refuse_other_run("there", make_manifest(shards), changed(config, name, OTHERS[name]), shards)
    assert f"checkpoint there is of another run: it has {name} = {theirs}, this one {OTHERS[name]};" in str(
        caught.value
    )


@pytest.mark.parametrize("name", FREE)
def test_where_and_how_long_may_change(shards: Manifest, name: str) -> None:
    config = changed(Config(model=model_config()), name, FREE[name])
    assert config != Config(model=model_config())
    refuse_other_run("there", make_manifest(shards), config, shards)
    assert name not in identity(dataclasses.asdict(config))


def test_an_option_that_only_one_of_the_two_has_is_named(shards: Manifest) -> None:
    config = Config(model=model_config())
    older = dataclasses.asdict(config)
    del older["loss"]["kl_weight"]
    with pytest.raises(CheckpointError, match=r"it has loss\.kl_weight = None, this one 0\.0"):
        refuse_other_run("there", make_manifest(shards, config=older), config, shards)
    newer = {**dataclasses.asdict(config), "momentum": 0.9}
    with pytest.raises(CheckpointError, match=r"it has momentum = 0\.9, this one None"):
        refuse_other_run("there", make_manifest(shards, config=newer), config, shards)


def test_other_shards_are_refused(shards: Manifest) -> None:
    config = Config(model=model_config())
    with pytest.raises(CheckpointError, match="checkpoint there was trained on other shards than"):
        refuse_other_run("there", make_manifest(shards, data_identity="0"), config, shards)
