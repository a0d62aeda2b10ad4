"""`sgloc train-classifier`: the classifier uses the same loop, engines, checkpoints and resume as SketchGloc."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch

from sgloc.cli import main
from sgloc.data.manifest import load_manifest
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.errors import CheckpointError
from sgloc.models.sketch_a_net.config import ClassifierConfig, RasterConfig, SketchANetConfig
from sgloc.models.sketch_a_net.load import load_classifier
from sgloc.models.sketch_a_net.recipe import SketchANetRecipe
from tests.checkpoints import make_model, save_model
from tests.commands import Said
from tests.forking import run_ranks
from tests.models.classifiers import make_config
from tests.patience import PATIENCE
from tests.train.launch import records
from tests.train.runs import train

CPU = torch.device("cpu")
ZERO = str(Path(__file__).parents[2] / "configs" / "deepspeed" / "zero2.json")


def words_of(config: ClassifierConfig) -> list[str]:
    sections = dataclasses.asdict(config)
    named = {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}
    return [word for name, value in named.items() if value not in ("", None) for word in (f"--{name}", str(value))]


def run(config: ClassifierConfig, num_processes: int) -> list[dict[str, Any]]:
    """Train to the end in real processes and return the training records."""
    run_dir = Path(config.train.run)
    run_ranks(["train-classifier", *words_of(config)], num_processes, run_dir.with_suffix(".log"), PATIENCE)
    return records(run_dir)


def terms(lines: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    return [tuple(line[name] for name in ("step", "loss", "accuracy", "gradient_norm")) for line in lines]


@pytest.fixture(scope="module")
def whole(picture_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run_dir = tmp_path_factory.mktemp("classifier") / "run"
    train(make_config(picture_shards, run_dir), "auto", SketchANetRecipe())
    return run_dir


def test_a_stopped_run_goes_on_to_the_bit(picture_shards: str, whole: Path, tmp_path: Path) -> None:
    for num_steps in (3, 6):
        train(make_config(picture_shards, tmp_path, num_steps=num_steps), "auto", SketchANetRecipe())
    assert terms(records(tmp_path)) == terms(records(whole))
    assert records(tmp_path, "validation")[-1]["accuracy"] == records(whole, "validation")[-1]["accuracy"]


def test_parts_of_a_batch_change_nothing(picture_shards: str, whole: Path, tmp_path: Path) -> None:
    train(make_config(picture_shards, tmp_path, accumulation=3), "auto", SketchANetRecipe())
    np.testing.assert_allclose(terms(records(tmp_path)), terms(records(whole)), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["", ZERO], ids=["ddp", "deepspeed"])
def test_two_ranks_and_the_other_engine_give_the_same(
    picture_shards: str, whole: Path, tmp_path: Path, deepspeed: str
) -> None:
    if deepspeed:
        pytest.importorskip("deepspeed", reason="DeepSpeed is not installed; install it with pip install -e '.[dev]'")
    lines = run(make_config(picture_shards, tmp_path / "run", deepspeed=deepspeed), 2)
    np.testing.assert_allclose(terms(lines), terms(records(whole)), rtol=1e-4)


def test_it_learns_and_is_tested(picture_shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(
        picture_shards, tmp_path, num_steps=60, global_batch=40, validate_every=60, checkpoint_every=60, log_every=10
    )
    config = dataclasses.replace(config, model=SketchANetConfig(width=8, keep=0.8))
    words = words_of(config)
    # --data is the short form of --data.path.
    words[words.index("--data.path")] = "--data"
    main(["train-classifier", *words])
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "test.json").read_text())
    assert said == f"test accuracy {result['accuracy']:.4f} on 40 drawings; {tmp_path}/confusion.png\n"
    # Chance level is 1/8.
    assert result["accuracy"] > 0.5
    confusion = np.array(result["confusion"])
    assert confusion.shape == (8, 8)
    assert confusion.sum(1).tolist() == [5] * 8
    assert np.trace(confusion) / 40 == result["accuracy"]
    assert [one["accuracy"] for one in result["categories"].values()] == (confusion.diagonal() / 5).tolist()
    assert list(result["categories"]) == load_manifest(picture_shards).categories
    height, width, _ = matplotlib.image.imread(tmp_path / "confusion.png").shape
    assert height == width > 300
    assert len(np.unique(matplotlib.image.imread(tmp_path / "confusion.png").reshape(-1, 4), axis=0)) > 50


def test_what_is_loaded_is_what_was_trained(picture_shards: str, whole: Path) -> None:
    classifier, manifest = load_classifier(str(whole), CPU), load_manifest(picture_shards)
    assert classifier.data_identity == manifest.identity
    assert classifier.line_width == RasterConfig().line_width
    reader = ShardReader(picture_shards, manifest, "valid")
    (packed,) = fixed_batches(reader, np.arange(reader.num_sketches), batch_size=100)
    strokes = [
        np.split(np.cumsum(one.offsets, axis=0, dtype=np.float64), np.cumsum(one.stroke_lengths)[:-1])
        for one in (packed.part(number, number + 1) for number in range(len(packed)))
    ]
    found = classifier.classify(strokes)
    best = min(records(whole, "validation"), key=lambda record: record["loss"])
    assert (found == packed.category).mean() == pytest.approx(best["accuracy"])
    # A sketch that cannot be rasterised gets the class -1.
    nothing = classifier.classify([[], strokes[0], [np.full((2, 2), np.nan)]])
    assert nothing.tolist() == [-1, found[0], -1]
    assert classifier.classify([]).shape == (0,)


def test_mistakes(picture_shards: str, tiny_shards: str, whole: Path, tmp_path: Path, said: Said) -> None:
    options = words_of(make_config(picture_shards, tmp_path))
    assert "--train.compile" in said("train-classifier", *options, "--train.compile", "true")
    assert "--data.translate" in said("train-classifier", *options, "--data.translate", "true")
    assert "did you mean --model.width?" in said("train-classifier", *options, "--model.widht", "3")
    assert "model.keep must be above 0" in said("train-classifier", *options, "--model.keep", "0")
    assert "data.path is not set" in said("train-classifier")
    save_model(tmp_path / "sketches", tiny_shards, make_model())
    with pytest.raises(CheckpointError, match="holds no classifier; pass a run of `sgloc train-classifier`"):
        load_classifier(str(tmp_path / "sketches"), CPU)
    assert "holds the model sketch_a_net, which cannot draw" in said(
        "generate", "--checkpoint", whole, "--data", picture_shards, "--out", tmp_path / "drawn"
    )
