"""`sgloc reorganize`: reads a user's drawing and moves its strokes to where the model places them."""

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

import sgloc
from sgloc.cli import main
from sgloc.config import OriginName
from sgloc.inference.pretrained import Pretrained
from sgloc.inference.reorganize import reorganize_strokes
from sgloc.inference.sketches import polylines_of_stroke3, stroke3_of_polylines
from tests.checkpoints import make_model, save_model
from tests.commands import Said

STROKES = [
    np.array([[0.0, 0.0], [255.0, 0.0], [255.0, 120.0]]),
    np.array([[40.0, 40.0], [90.0, 40.0]]),
    np.array([[10.0, 200.0], [10.0, 100.0], [60.0, 100.0]]),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_shards: str) -> str:
    return str(save_model(tmp_path_factory.mktemp("run"), tiny_shards, make_model(seed=12)))


@pytest.fixture(scope="module")
def pretrained(checkpoint: str) -> Pretrained:
    return sgloc.load_pretrained(checkpoint)


def test_it_is_what_the_python_api_gives(pretrained: Pretrained) -> None:
    ((moved, redrawn),) = reorganize_strokes(pretrained, [STROKES])
    sketch = stroke3_of_polylines(STROKES)
    (kept,), (drawn,) = pretrained.reorganize([sketch], keep_strokes=True), pretrained.reorganize([sketch])
    for one, other in zip(moved, polylines_of_stroke3(kept), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    for one, other in zip(redrawn, polylines_of_stroke3(drawn), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert any(np.abs(one - before).max() > 1 for one, before in zip(moved, STROKES, strict=True))


@pytest.mark.parametrize("origin", ["first_point", "top_left"])
def test_a_drawing_has_its_origin_where_the_model_knows_it(pretrained: Pretrained, origin: OriginName) -> None:
    drawing = STROKES[::-1]
    shift = drawing[0][0] if origin == "first_point" else np.zeros(2)
    model = dataclasses.replace(pretrained, origin=origin)
    ((moved, redrawn),) = reorganize_strokes(model, [drawing])
    sketch = stroke3_of_polylines([line - shift for line in drawing])
    for given, expected in (
        (redrawn, model.reorganize([sketch])),
        (moved, model.reorganize([sketch], keep_strokes=True)),
    ):
        for one, other in zip(given, polylines_of_stroke3(expected[0]), strict=True):
            np.testing.assert_allclose(one, other + shift, atol=1e-3)


def test_the_canvas_does_not_matter(pretrained: Pretrained) -> None:
    shift = np.array((-30.0, 12.0))
    ((moved, redrawn),) = reorganize_strokes(pretrained, [STROKES])
    ((other_moved, other_redrawn),) = reorganize_strokes(pretrained, [[stroke * 7.5 + shift for stroke in STROKES]])
    for one, other in zip(moved + redrawn, other_moved + other_redrawn, strict=True):
        np.testing.assert_allclose(other, one * 7.5 + shift, atol=1e-2)


@pytest.mark.parametrize("form", ["svg", "json", "ndjson"])
def test_the_files(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    path = tmp_path / f"house.{form}"
    if form == "svg":
        lines = "".join(f'<polyline points="{" ".join(f"{x},{y}" for x, y in stroke)}"/>' for stroke in STROKES)
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="300" fill="none" stroke="black">{lines}</svg>'
        )
    elif form == "json":
        path.write_text(json.dumps([stroke.tolist() for stroke in STROKES]))
    else:
        path.write_text(json.dumps({"drawing": [stroke.T.tolist() for stroke in STROKES]}))
    out = tmp_path / "out"
    main(["reorganize", str(path), "--checkpoint", checkpoint, "--out", str(out)])
    assert {file.name for file in out.iterdir()} == {"house-moved.svg", "house-redrawn.svg", "before-after.png"}
    said = capsys.readouterr().out
    assert said == f"{out}/house-moved.svg, {out}/house-redrawn.svg\n{out}/before-after.png\n"
    root = ElementTree.fromstring((out / "house-moved.svg").read_text())
    moved = [
        np.array([pair.split(",") for pair in line.attrib["points"].split()], dtype=float)
        for line in root.iter("{http://www.w3.org/2000/svg}polyline")
    ]
    np.testing.assert_allclose(moved[0], STROKES[0], atol=0.01)
    for stroke, before in zip(moved, STROKES, strict=True):
        np.testing.assert_allclose(np.diff(stroke, axis=0), np.diff(before, axis=0), atol=0.05)
    height, width, _ = matplotlib.image.imread(out / "before-after.png").shape
    assert height > width > 200


def test_mistakes(checkpoint: str, tmp_path: Path, said: Said) -> None:
    path = tmp_path / "a.json"
    path.write_text("[]")
    assert "empty drawing" in said("reorganize", path, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    path.write_text("[[[0, 0], [1, 1]]]")
    (tmp_path / "file").write_text("")
    text = said("reorganize", path, "--checkpoint", checkpoint, "--out", tmp_path / "file" / "out")
    assert "cannot write files to" in text
    text = said("reorganize", path, "--checkpoint", checkpoint, "--out", tmp_path / "o", "--temperature", "-1")
    assert "temperature must be from 0" in text


def test_where_the_model_draws_nothing_it_is_said(
    tiny_shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(seed=12)
    with torch.no_grad():
        # Force the last of the three pen states, the end of the drawing, at the first step.
        model.decoder.output.bias[2] = 1e4
    silent = save_model(tmp_path / "run", tiny_shards, model)
    (tmp_path / "house.json").write_text(json.dumps([stroke.tolist() for stroke in STROKES]))
    out = tmp_path / "out"
    out.mkdir()
    (out / "house-redrawn.svg").write_text("of an earlier model")
    main(["reorganize", str(tmp_path / "house.json"), "--checkpoint", str(silent), "--out", str(out)])
    assert {file.name for file in out.iterdir()} == {"house-moved.svg", "before-after.png"}
    output = capsys.readouterr()
    assert output.out == f"{out}/house-moved.svg\n{out}/before-after.png\n"
    assert "the model drew nothing for house; no -redrawn.svg was written" in output.err
