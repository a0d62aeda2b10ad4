"""The origin of drawings, from source files to the input of a model (METHOD 1)."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import sgloc
from sgloc.config import OriginName
from sgloc.data.batch import Preparation
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import load_manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.dist import Group
from sgloc.errors import DataError
from sgloc.evaluate.generate import generate
from sgloc.evaluate.options import EvaluateOptions, GenerateOptions
from sgloc.evaluate.run import evaluate
from sgloc.models.sketchgloc.config import Config, DataConfig, TrainConfig
from tests.checkpoints import make_model, model_config, save_model, single_process
from tests.drawings import make_drawings, write_binary, write_ndjson, write_npz
from tests.train.runs import open_run

CPU = torch.device("cpu")


def write_form(folder: Path, form: str) -> None:
    drawings = make_drawings(150, ["cat"], points=5)
    if form == "ndjson":
        write_ndjson(folder / "cat.ndjson", drawings)
    elif form == "binary":
        write_binary(folder / "cat.bin", drawings)
    else:
        rows = [drawing.stroke3 for drawing in drawings]
        write_npz(folder / "cat.npz", train=rows[:120], valid=rows[120:135], test=rows[135:])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Shards of the same drawings, by source format."""
    folders = {}
    for name, forms in {"npz": ["npz"], "ndjson": ["ndjson"], "binary": ["binary"], "mixed": ["npz", "ndjson"]}.items():
        folder = tmp_path_factory.mktemp(name)
        for form in forms:
            write_form(folder, form)
        build_shards(str(folder), str(folder / "shards"))
        folders[name] = str(folder / "shards")
    return folders


@pytest.mark.parametrize(("form", "expected"), [("npz", False), ("ndjson", True), ("binary", True)])
def test_an_npz_brings_its_own_origin_and_the_other_forms_start_at_the_first_point(
    shards: dict[str, str], form: str, expected: bool
) -> None:
    manifest = load_manifest(shards[form])
    assert starts_at_first_point(manifest, "first_point", shards[form]) == expected
    assert not starts_at_first_point(manifest, "top_left", shards[form])


def make_config(path: str, run_dir: Path, origin: OriginName) -> Config:
    return Config(
        model=model_config(),
        data=DataConfig(path=path, origin=origin),
        train=TrainConfig(run=str(run_dir), global_batch=4, device="cpu"),
    )


@pytest.mark.parametrize("origin", ["first_point", "top_left"])
def test_training_and_validation_have_one_origin(shards: dict[str, str], tmp_path: Path, origin: OriginName) -> None:
    with open_run(make_config(shards["ndjson"], tmp_path, origin), "auto") as session:
        for prepare in (session.prepare, session.validation.prepare):
            assert isinstance(prepare, Preparation)
            assert prepare.from_first_point == (origin == "first_point")


def test_shards_of_both_kinds_are_refused_where_it_matters(shards: dict[str, str], tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"mixes drawings from npz files, .* or train with data.origin top_left"),
        open_run(make_config(shards["mixed"], tmp_path / "run", "first_point"), "auto"),
    ):
        pass
    assert not (tmp_path / "run").exists()
    with open_run(make_config(shards["mixed"], tmp_path / "run", "top_left"), "auto"):
        pass


@pytest.mark.parametrize("origin", ["first_point", "top_left"])
def test_what_comes_after_training_has_the_origin_that_the_model_was_trained_with(
    shards: dict[str, str], tmp_path: Path, origin: OriginName
) -> None:
    config = make_config(shards["ndjson"], tmp_path / "run", origin)
    checkpoint = str(save_model(tmp_path / "run", shards["ndjson"], make_model(), config=dataclasses.asdict(config)))
    pretrained = sgloc.load_pretrained(checkpoint)
    assert pretrained.origin == origin
    drawn = generate(checkpoint, shards["ndjson"], str(tmp_path / "drawn"), GenerateOptions(), device=CPU)
    firsts = np.array([one.original[0][0] for one in drawn])
    assert (np.abs(firsts).max() < 1e-3) == (origin == "first_point")
    options = EvaluateOptions(disturb=(0.0,), resamples=10)
    places = (checkpoint, shards["ndjson"], "", str(tmp_path / "evaluated"))
    with single_process():
        evaluate(*places, options, Group())
    kept = safetensors.numpy.load((tmp_path / "evaluated" / "parts" / "000000.safetensors").read_bytes())
    expected = pretrained.encode_polylines([one.original for one in drawn])
    np.testing.assert_allclose(kept["shared/ret/gallery"], expected, rtol=1e-4, atol=1e-5)
