"""Start a new run from the weights of a trained model (`init_from`)."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from sgloc.cli import main
from sgloc.hub.export import export_model
from sgloc.models.sketchgloc.config import Config
from sgloc.train.checkpoint.format import read_manifest
from sgloc.train.checkpoint.load import read_tensors
from tests.checkpoints import step_path
from tests.commands import Said
from tests.train.launch import losses, records, run, tiny_options
from tests.train.runs import make_config, open_run, train

_FASTER = 3e-3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sample_shards: str) -> Path:
    """A run of four steps, the last of which is the best, and its exported model; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    train(make_config(sample_shards, run_dir, num_steps=4), "auto")
    export_model(str(run_dir), str(run_dir / "exported"))
    return run_dir


def fine_tuning(shards: str, run_dir: Path, source: Path | str, **options: Any) -> Config:
    """Return the configuration of a run that starts from another's weights, with a higher learning rate."""
    config = make_config(shards, run_dir, init_from=str(source), **options)
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=_FASTER))


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    tensors = read_tensors(str(checkpoint), read_manifest(str(checkpoint)))
    return {name: tensor for name, tensor in tensors if name.startswith("model.")}


@pytest.mark.parametrize("source", [".", "checkpoints/step-00000004", "exported"], ids=["run", "checkpoint", "model"])
def test_a_new_run_has_the_weights_and_nothing_else(
    trained: Path, sample_shards: str, tmp_path: Path, source: str
) -> None:
    with open_run(fine_tuning(sample_shards, tmp_path / "new", trained / source), "auto") as session:
        tensors = session.engine.snapshot(lambda name: True)
        assert (session.state.step, session.state.best_step) == (0, None)
    for name, tensor in weights_of(step_path(trained, 4)).items():
        assert torch.equal(tensors.pop(name), tensor), name
    assert tensors
    assert all(bool((tensor == 0).all()) for tensor in tensors.values())


def test_such_a_run_goes_on_from_itself(trained: Path, sample_shards: str, tmp_path: Path) -> None:
    source = Path(shutil.copytree(trained, tmp_path / "source"))
    whole = fine_tuning(sample_shards, tmp_path / "whole", source, num_steps=4)
    train(whole, "auto")
    halved = fine_tuning(sample_shards, tmp_path / "halved", source, num_steps=2)
    train(halved, "auto")
    shutil.rmtree(source)
    train(dataclasses.replace(halved, train=dataclasses.replace(halved.train, num_steps=3)), "auto")
    # init_from may be left out when the run is resumed; the run still records it.
    train(dataclasses.replace(halved, train=dataclasses.replace(halved.train, num_steps=4, init_from="")), "auto")
    own, other = (weights_of(step_path(tmp_path / name, 4)) for name in ("halved", "whole"))
    assert all(torch.equal(own[name], other[name]) for name in other)
    assert yaml.safe_load((tmp_path / "halved/config.yaml").read_text())["train"]["init_from"] == str(source)
    assert read_manifest(str(step_path(tmp_path / "halved", 4))).config["train"]["init_from"] == str(source)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_two_ranks_start_from_the_same_weights(
    sample_shards: str, tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    options = ["--train.num_steps=2"]
    if engine == "deepspeed":
        pytest.importorskip("deepspeed")
        (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": 2}}))
        options += ["--train.deepspeed", str(tmp_path / "zero.json")]
    source = tmp_path / "source"
    main(["train", *tiny_options(source, sample_shards), "--train.num_steps=1"])
    new = ("--init_from", str(source), "--optimizer.learning_rate=3e-3")
    main(["train", *tiny_options(tmp_path / "one", sample_shards), *new, "--train.num_steps=2"])
    two = losses(run(tmp_path / "two", sample_shards, 2, *new, *options))
    for mine, theirs in zip(two, losses(records(tmp_path / "one")), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_classifier_starts_from_another(tiny_shards: str, tmp_path: Path) -> None:
    words = ["train-classifier", "--data", tiny_shards, "--model.width=2", "--train.global_batch=4"]
    words += ["--train.num_steps=1", "--train.device=cpu", "--raster.line_width=9"]
    main([*words, "--train.run", str(tmp_path / "first")])
    second = [*words, "--train.run", str(tmp_path / "second"), "--init-from", str(tmp_path / "first")]
    main([*second, "--optimizer.learning_rate=1e-12", "--optimizer.min_learning_rate=1e-12"])
    first, second_weights = (weights_of(step_path(tmp_path / name, 1)) for name in ("first", "second"))
    for name, tensor in first.items():
        assert second_weights[name] == pytest.approx(tensor, abs=1e-6), name


def test_a_start_that_is_refused_leaves_nothing(
    said: Said, trained: Path, sample_shards: str, tiny_shards: str, tmp_path: Path
) -> None:
    options = make_config(sample_shards, tmp_path / "new")
    path = tmp_path / "options.yaml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(options)))
    here = ("train", "--config", path)
    checkpoint = step_path(trained, 4)
    told = said(*here, "--resume", checkpoint, "--optimizer.learning_rate=1e-4")
    assert f"or start a new run from its weights: set init_from to {checkpoint} and choose another run folder" in told
    told = said(*here, "--resume", checkpoint, "--data.path", tiny_shards)
    assert f"or start a new run from its weights: set init_from to {checkpoint} and choose another run folder" in told
    told = said(*here, "--resume", checkpoint, "--init_from", trained)
    assert "init_from starts a new run from weights, resume continues a run; set only one of them" in told
    assert "does not exist" in said(*here, "--init_from", tmp_path / "nothing")
    told = said(*here, "--init_from", trained, "--model.latent_size=5")
    assert f"{trained} belongs to another model: " in told
    assert re.search(r"\w+ is float32 \[[\d, ]+\] there and float32 \[[\d, ]+\] here;", told)
    assert "more tensors; set the model options that it was trained with" in told
    told = said(*here, "--init_from", trained / "exported", "--model.decoder.cell=layer_norm")
    assert "is missing there and float32" in told
    told = said("train", "--config", path, "--train.run", trained, "--init_from", tmp_path, "--train.num_steps=9")
    assert f"{trained} was started from scratch, not from {tmp_path}; unset init_from to continue it" in told
    assert not (tmp_path / "new").exists()
