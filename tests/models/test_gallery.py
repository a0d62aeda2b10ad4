"""Galleries of validation sketches: their content, and that drawing them does not affect training."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sgloc.config import LogConfig
from sgloc.evaluate.generate import generate
from sgloc.evaluate.options import GenerateOptions
from sgloc.models.sketchgloc.config import Config
from sgloc.train.loggers.tensorboard import TensorBoard
from tests.train.launch import losses
from tests.train.runs import make_config, open_run, records, train

CPU = torch.device("cpu")


def with_galleries(config: Config, **data: Any) -> Config:
    return dataclasses.replace(
        config, log=LogConfig(tensorboard=True, gallery=5), data=dataclasses.replace(config.data, **data)
    )


def seen_alike(shards: str, run_dir: Path) -> Config:
    """Return a configuration without translation: all sketches share a position, so a few steps change the drawings."""
    config = make_config(shards, run_dir, seed=3, checkpoint_every=4)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, translate=False))


@pytest.fixture(scope="module")
def drawn_run(picture_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("drawn")
    train(with_galleries(seen_alike(picture_shards, run_dir)), "auto")
    return run_dir


def test_training_does_not_notice(picture_shards: str, drawn_run: Path, tmp_path: Path) -> None:
    train(seen_alike(picture_shards, tmp_path), "auto")
    assert losses(records(drawn_run, "train")) == losses(records(tmp_path, "train"))
    assert not (tmp_path / "gallery").exists()


@pytest.mark.parametrize(("name", "disturb"), [("generated", 0.0), ("reorganized", 0.1)])
def test_a_gallery_is_what_generate_draws_of_the_same_checkpoint(
    picture_shards: str, drawn_run: Path, tmp_path: Path, name: str, disturb: float
) -> None:
    shown = {path.name: path.read_bytes() for path in (drawn_run / "gallery").iterdir()}
    assert len(shown) == len(set(shown.values())) == 4
    for step in (4, 8):
        options = GenerateOptions(split="valid", count=5, disturb=disturb, seed=3)
        checkpoint = drawn_run / f"checkpoints/step-{step:08d}"
        generate(str(checkpoint), picture_shards, str(tmp_path), options, device=CPU)
        assert shown[f"step-{step:08d}-{name}.png"] == (tmp_path / "gallery.png").read_bytes()
    images = EventAccumulator(str(drawn_run / "tensorboard")).Reload().Images(f"gallery/{name}")
    assert [(image.step, image.encoded_image_string) for image in images] == [
        (step, shown[f"step-{step:08d}-{name}.png"]) for step in (4, 8)
    ]


def test_strokes_are_moved_where_training_moves_none(picture_shards: str, tmp_path: Path) -> None:
    pictures = []
    for disturb_scale in (0.0, 0.1):
        config = with_galleries(make_config(picture_shards, tmp_path / str(disturb_scale)), disturb=disturb_scale)
        with open_run(config, "auto") as run:
            assert run.gallery is not None
            before = torch.get_rng_state(), random.getstate()
            pictures.append(run.gallery.draw(run.engine.model, CPU))
            assert pictures[-1] == run.gallery.draw(run.engine.model, CPU)
            assert run.engine.model.training
            assert torch.equal(before[0], torch.get_rng_state())
            assert before[1] == random.getstate()
    assert pictures[0] == pictures[1]
    assert pictures[0]["gallery/generated"] != pictures[0]["gallery/reorganized"]


def test_what_cannot_be_drawn_or_shown_is_told_once(
    picture_shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(*_: object) -> None:
        raise RuntimeError("no room for pictures")

    monkeypatch.setattr(TensorBoard, "show", show)
    train(with_galleries(make_config(picture_shards, tmp_path / "shown")), "auto")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("TensorBoard")]
    assert told == [
        "TensorBoard failed at step 4 (no room for pictures); training continues, and this warning is not repeated",
        "TensorBoard failed 4 times since the run was started or resumed",
    ]
    with open_run(with_galleries(make_config(picture_shards, tmp_path / "drawn")), "auto") as run, torch.no_grad():
        assert run.gallery is not None
        for name, parameter in run.engine.model.named_parameters():
            if name.startswith("decoder."):
                parameter.fill_(torch.inf)
        capsys.readouterr()
        assert run.gallery.draw(run.engine.model, CPU) == run.gallery.draw(run.engine.model, CPU) == {}
        told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if line.startswith("the galleries cannot be drawn (")]) == 1
