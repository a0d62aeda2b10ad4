"""Which checkpoint a run resumes from, and which it must refuse (DESIGN contracts 3 and 4)."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import sgloc
from sgloc.config import identity
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.errors import CheckpointError
from sgloc.models.sketch_a_net.config import ClassifierConfig
from sgloc.models.sketchgloc.config import Config, DataConfig
from sgloc.train.checkpoint.format import read_manifest
from sgloc.train.start import checkpoints_to_resume, refuse_other_run
from tests.checkpoints import (
    SHARD,
    change_manifest,
    flip_bit,
    make_manifest,
    make_model,
    model_config,
    save_model,
    save_steps,
    single_process,
    step_path,
    truncate,
    without,
)
from tests.logged import collected
from tests.train.runs import make_config, open_run, train


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 and 2."""
    with single_process():
        save_steps(tmp_path / "run", [1, 2])
    return tmp_path / "run"


def resumed(run_dir: Path | str, resume: object) -> list[int]:
    """Return the steps of the checkpoints to resume from, in the order they are tried; none may be skipped."""
    with collected() as messages:
        found = checkpoints_to_resume(str(run_dir), str(resume))
    assert messages == []
    return [int(folder.rpartition("-")[2]) for folder in found]


def refuse(run_dir: Path, resume: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoints_to_resume(str(run_dir), str(resume))


def test_auto_takes_the_newest_if_there_is_any(run_dir: Path, tmp_path: Path) -> None:
    assert resumed(run_dir, "auto") == [2, 1]
    assert resumed(tmp_path / "new", "auto") == []
    assert resumed(f"memory://{tmp_path}", "auto") == []


def test_never_does_not_run_over_checkpoints(run_dir: Path, tmp_path: Path) -> None:
    assert resumed(tmp_path / "new", "never") == []
    refuse(run_dir, "never", "already holds checkpoints, which resume 'never' would overwrite")
    truncate(step_path(run_dir, 1) / SHARD)
    truncate(step_path(run_dir, 2) / SHARD)
    refuse(run_dir, "never", "already holds checkpoints")


def test_a_new_run_starts_from_the_checkpoint_given(run_dir: Path, tmp_path: Path, logged: list[str]) -> None:
    new, first, second = tmp_path / "new", step_path(run_dir, 1), step_path(run_dir, 2)
    assert checkpoints_to_resume(str(new), str(first)) == [str(first)]
    assert checkpoints_to_resume(str(new), str(run_dir)) == [str(second)]
    truncate(second / SHARD)
    assert checkpoints_to_resume(str(new), str(run_dir)) == [str(first)]
    assert [str(second) in sentence for sentence in logged] == [True]
    truncate(first / SHARD)
    refuse(new, first, "is damaged")
    refuse(new, tmp_path / "none", "none holds no intact checkpoint")
    (first / "manifest.json").unlink()
    refuse(new, first, "step-00000001 holds no intact checkpoint")


def test_own_checkpoints_win_over_the_one_given_so_that_a_requeued_job_may_keep_its_command(
    run_dir: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    for resume in (step_path(other, 1), tmp_path / "gone", step_path(run_dir, 2), f"{step_path(run_dir, 2)}/", run_dir):
        assert checkpoints_to_resume(str(run_dir), str(resume))[0] == str(step_path(run_dir, 2))


def test_going_back_to_an_older_checkpoint_of_the_same_run_is_refused(run_dir: Path, logged: list[str]) -> None:
    refuse(run_dir, step_path(run_dir, 1), "has a newer checkpoint than .*step-00000001; to branch off")
    truncate(step_path(run_dir, 2) / SHARD)
    assert len(checkpoints_to_resume(str(run_dir), str(step_path(run_dir, 1)))) == 2
    assert [str(step_path(run_dir, 2)) in sentence for sentence in logged] == [True]


def state_after(config: Config) -> tuple[int, dict[str, list[Any]]]:
    """Return the step and all tensors with which a run of this configuration starts."""
    with open_run(config, "auto") as session:
        tensors = session.engine.snapshot(lambda name: True)
        return session.state.step, {name: tensor.tolist() for name, tensor in tensors.items()}


def test_a_damaged_newest_is_skipped_and_named_and_leaves_nothing_in_the_run(
    sample_shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(sample_shards, tmp_path / "run", num_steps=4, checkpoint_every=2)
    train(config, "auto")
    shutil.copytree(tmp_path / "run", tmp_path / "older")
    shutil.rmtree(step_path(tmp_path / "older", 4))
    # Damage to the last byte is detected only after all tensors have been loaded into the engine.
    shard = step_path(tmp_path / "run", 4) / SHARD
    flip_bit(shard, 8 * shard.stat().st_size - 1)
    capsys.readouterr()
    found = state_after(config)
    assert found[0] == 2
    assert capsys.readouterr().err.count(f"skipping checkpoint {step_path(tmp_path / 'run', 4)}: ") == 1
    assert found == state_after(make_config(sample_shards, tmp_path / "older", num_steps=4))
    truncate(step_path(tmp_path / "run", 2) / SHARD)
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints in .* is intact; restore one"):
        train(config, "auto")
    assert capsys.readouterr().err.count("skipping checkpoint ") == 2


@pytest.fixture(scope="module")
def shards(tiny_shards: str) -> Manifest:
    return load_manifest(tiny_shards)


def changed(config: Config, name: str, value: Any) -> Config:
    """Return the configuration with one option, given by its dotted name, changed."""

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
    "data.disturb": 0.3,
    "loss.kl_weight": 0.5,
    "optimizer.learning_rate": 0.5,
    "train.seed": 7,
    "train.global_batch": 9,
    "train.precision": "bfloat16",
    "data.translate": False,
    "data.origin": "top_left",
    "data.validation_disturb": 0.0,
    "loss.density_floor": 1e-6,
    "optimizer.clip_by": "variable",
}
FREE = {
    "data.path": "elsewhere",
    "data.prefetch": 7,
    "train.run": "elsewhere",
    "train.num_steps": 7,
    "train.accumulation": 7,
    "train.device": "cpu",
    "train.log_every": 7,
    "train.validate_every": "1 epoch",
    "train.patience": 7,
    "train.checkpoint_every": 7,
    "train.keep_checkpoints": 7,
    "log.wandb": "offline",
    "log.wandb_project": "other",
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_and_the_option_named(shards: Manifest, name: str) -> None:
    config = Config(model=model_config())
    theirs = identity(config)[name]
    with pytest.raises(CheckpointError) as caught:
        refuse_other_run("there", make_manifest(shards), changed(config, name, OTHERS[name]), shards)
    assert f"checkpoint there belongs to another run: it has {name} = {theirs}, this run {OTHERS[name]};" in str(
        caught.value
    )


@pytest.mark.parametrize("name", FREE)
def test_where_and_how_long_may_change(shards: Manifest, name: str) -> None:
    config = changed(Config(model=model_config()), name, FREE[name])
    assert config != Config(model=model_config())
    refuse_other_run("there", make_manifest(shards), config, shards)
    assert name not in identity(config)


def test_an_option_younger_than_the_checkpoint_has_its_default(shards: Manifest) -> None:
    config = Config(model=model_config())
    older = dataclasses.asdict(config)
    del older["loss"]["kl_weight"]
    refuse_other_run("there", make_manifest(shards, config=older), config, shards)
    other = changed(config, "loss.kl_weight", 0.5)
    with pytest.raises(
        CheckpointError, match=r"it has loss\.kl_weight = 0\.0 \(it predates this option\), this run 0\.5"
    ):
        refuse_other_run("there", make_manifest(shards, config=older), other, shards)


BEFORE = {"data.origin": "top_left", "data.translate": False, "model.hyper_dropout": "both"}


@pytest.mark.parametrize("name", BEFORE)
def test_an_option_younger_than_the_checkpoint_whose_default_is_new_has_what_was_done_before(
    shards: Manifest, name: str
) -> None:
    config = Config(model=model_config())
    older = make_manifest(shards, config=without(config, name))
    refuse_other_run("there", older, changed(config, name, BEFORE[name]), shards)
    said = f"it has {name} = {BEFORE[name]} (it predates this option), this run "
    with pytest.raises(CheckpointError, match=re.escape(said)):
        refuse_other_run("there", older, config, shards)


def test_a_run_from_before_its_model_had_a_name_goes_on(shards: Manifest) -> None:
    for config in (ClassifierConfig(), Config(model=model_config())):
        refuse_other_run("there", make_manifest(shards, config=without(config, "model.kind")), config, shards)


def test_a_classifier_from_when_it_had_options_of_sketches_is_refused_by_their_names(shards: Manifest) -> None:
    older = dataclasses.asdict(ClassifierConfig())
    older["data"] |= {"translate": True}
    with pytest.raises(CheckpointError, match=r"it has data\.translate = True, this run None; .* init_from to there"):
        refuse_other_run("there", make_manifest(shards, config=older), ClassifierConfig(), shards)


def test_all_options_that_differ_are_named_at_once(shards: Manifest) -> None:
    config = changed(changed(Config(model=model_config()), "train.seed", 7), "loss.kl_weight", 0.5)
    message = r"it has loss.kl_weight = 0.0, this run 0.5; train.seed = 0, this run 7; set those values, or start"
    with pytest.raises(CheckpointError, match=message):
        refuse_other_run("there", make_manifest(shards), config, shards)


def test_options_recorded_under_old_names_are_read_under_the_new(
    shards: Manifest, tiny_shards: str, tmp_path: Path
) -> None:
    config = Config(model=model_config(), data=DataConfig(disturb=0.3))
    folder = save_model(tmp_path, tiny_shards, make_model(), config=dataclasses.asdict(config))

    def make_old(fields: dict[str, Any]) -> None:
        fields["config"]["train"]["run_dir"] = fields["config"]["train"].pop("run")
        fields["config"]["data"]["disturb_scale"] = fields["config"]["data"].pop("disturb")

    change_manifest(folder, make_old)
    older = read_manifest(str(folder))
    assert older.config == dataclasses.asdict(config)
    refuse_other_run("there", older, config, shards)
    assert sgloc.load_pretrained(str(folder)).model.config == config.model


def test_an_option_that_is_unknown_here_is_named(shards: Manifest) -> None:
    config = Config(model=model_config())
    newer = {**dataclasses.asdict(config), "momentum": 0.9}
    with pytest.raises(CheckpointError, match=r"it has momentum = 0\.9, this run None"):
        refuse_other_run("there", make_manifest(shards, config=newer), config, shards)


def test_other_shards_are_refused(shards: Manifest) -> None:
    config = Config(model=model_config())
    with pytest.raises(CheckpointError, match="checkpoint there was trained on other shards than"):
        refuse_other_run("there", make_manifest(shards, data_identity="0"), config, shards)
