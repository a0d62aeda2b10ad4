"""`sgloc import-tf`: converts the original's TensorFlow checkpoints into sgloc models."""

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

import sgloc
from sgloc.cli import main
from sgloc.data.manifest import load_manifest
from sgloc.hub import import_tf
from sgloc.models.sketchgloc.config import CellName, ModelConfig
from sgloc.models.sketchgloc.network import SketchGloc
from tests.commands import Said
from tests.hub.original import (
    DEFAULTS,
    OTHER_VARIANT,
    PUBLISHED,
    SMALL,
    Arrays,
    Original,
    Sizes,
    options_of,
    shapes,
    values,
    write,
)
from tests.nn.recurrent.cells import CELLS

# Names and shapes of the variables of the original's own checkpoint; the file is optional.
LISTED = Path(__file__).parents[3] / "shared" / "tf-variables.txt"
SKETCH = np.array([[10, 5, 0], [3, -2, 1], [20, 1, 0], [5, 5, 0], [1, 1, 0], [2, 0, 0], [0, 2, 0], [1, 1, 1]])
POINTS = np.cumsum(SKETCH[:, :2], axis=0) / 20


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one checkpoint of the original for each cell, all other options at their defaults."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed; install it with pip install 'sgloc[tf]'")
    folder = tmp_path_factory.mktemp("original")
    made: dict[Path, tuple[Arrays, dict[str, Any]]] = {}
    for cell in CELLS:
        made[folder / cell] = drawing_values(cell), options_of(cell, cell)
    write(made)
    return folder


def drawing_values(cell: CellName) -> Arrays:
    """Return weights whose drawings do not end at the first step."""
    arrays = values(cell, cell)
    arrays["sketchBoard/decoder/decoder/fc/linear/fc_b"][:3] = [3, 2, -9]
    return arrays


Imports = Callable[..., dict[str, Any]]


@pytest.fixture
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imports:
    """A function that imports weights with a model_config.json and returns the resulting config.json.

    It bypasses TensorFlow, which takes seconds to start.
    """
    folder = tmp_path / "tf"
    folder.mkdir()
    (folder / "vector-7.index").touch()

    def run(arrays: Arrays, options: dict[str, Any] | str | None, *words: str) -> dict[str, Any]:
        monkeypatch.setattr(import_tf, "read_with_tensorflow", lambda checkpoint: (arrays, 0))
        (folder / "model_config.json").unlink(missing_ok=True)
        if options is not None:
            text = options if isinstance(options, str) else json.dumps(options)
            (folder / "model_config.json").write_text(text)
        main(["import-tf", str(folder), "--out", str(tmp_path / "out"), "--scale", "20", *words])
        about: dict[str, Any] = json.loads((tmp_path / "out" / "config.json").read_text())
        return about

    return run


def zeros(encoder: CellName, decoder: CellName, sizes: Sizes) -> Arrays:
    return {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes(encoder, decoder, sizes).items()}


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_checkpoint_computes_what_the_original_does(
    cell: CellName, checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["import-tf", str(checkpoints / cell), "--out", str(tmp_path / "out"), "--scale", "20"])
    said = capsys.readouterr()
    assert "vector-2000, scale 20, whole strokes as nodes; skipped 5 training-only variables" in said.out
    assert said.err == ""
    pretrained = sgloc.load_pretrained(str(tmp_path / "out"))
    assert (pretrained.scale, pretrained.longest_points) == (20.0, 180)
    original = Original(drawing_values(cell))
    (code,) = pretrained.encode([SKETCH])
    np.testing.assert_allclose(code, original.code(cell, [POINTS[:2], POINTS[2:]]), rtol=2e-4, atol=2e-5)
    (rows,) = pretrained.draw_codes([code], 0.0, 7, 0, 1)
    expected = original.drawing(cell, code.astype(np.float64), 7)
    assert len(rows) == 7
    np.testing.assert_allclose(rows.numpy(), np.stack(expected), rtol=2e-3, atol=2e-3)
    assert np.ptp(rows.numpy()[:, :2], axis=0).min() > 0.01


def test_the_published_sizes_with_every_option_at_its_default(imports: Imports, tmp_path: Path) -> None:
    weights = zeros("lstm", "hyper", PUBLISHED)
    trainable = {name: array for name, array in weights.items() if "/moving_" not in name}
    assert (len(trainable), sum(array.size for array in trainable.values())) == (63, 24_057_979)
    about = imports(weights, DEFAULTS)
    assert about["model"] == json.loads(json.dumps(dataclasses.asdict(ModelConfig(batch_norm_epsilon=1.001e-5))))
    assert about["longest_points"] == 180
    assert about["data"]["origin"] == "first_point"
    assert about["training"]["original_options"] == DEFAULTS
    assert "trained for synthesis" in (tmp_path / "out" / "README.md").read_text()
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "numpy") as opened:
        held = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118, not a mapping.
    own = SketchGloc(ModelConfig()).state_dict()
    assert held == {name: list(tensor.shape) for name, tensor in own.items()}


def test_the_variables_are_those_of_the_originals_own_checkpoint() -> None:
    if not LISTED.exists():
        pytest.skip(
            f"{LISTED}, the list of the original checkpoint's variables, does not exist; "
            "the test of the published sizes checks our own table"
        )
    lines = [line.split("  ") for line in LISTED.read_text().splitlines() if not line.startswith("#")]
    listed = {name: tuple(json.loads(shape)) for name, shape, kind in lines if kind != "adam" and "num_of" not in name}
    assert listed == shapes("lstm", "hyper", PUBLISHED)


def test_the_other_variant_has_short_nodes(imports: Imports, tmp_path: Path) -> None:
    sizes = Sizes(hidden=256, decoder=512, latent=64, hyper=256, embedding=32, mixtures=20)
    about = imports(zeros("lstm", "hyper", sizes), OTHER_VARIANT)
    assert about["model"]["max_node_points"] == 5
    assert about["model"]["encoder"] == {"cell": "lstm", "hidden_size": 256, "recurrent_keep": 1.0}
    assert (about["model"]["latent_size"], about["model"]["decoder"]["num_mixtures"]) == (64, 20)
    assert "a task that the original did not record" in (tmp_path / "out" / "README.md").read_text()


def test_short_nodes_are_encoded_as_such(imports: Imports, tmp_path: Path) -> None:
    weights = values("lstm", "lstm")
    imports(weights, options_of("lstm", "lstm") | {"max_stroke_len": 5})
    (code,) = sgloc.load_pretrained(str(tmp_path / "out")).encode([SKETCH])
    expected = Original(weights).code("lstm", [POINTS[:2], POINTS[2:7], POINTS[7:]])
    np.testing.assert_allclose(code, expected, rtol=2e-4, atol=2e-5)
    assert imports(weights, options_of("lstm", "lstm"), "--max_node_points", "6")["model"]["max_node_points"] == 6


SOUND = options_of("lstm", "hyper")


@pytest.mark.parametrize(
    ("options", "words", "note"),
    [
        pytest.param(SOUND | {"num_mixture": 20, "num_sub": "two"}, [], "", id="dead fields of any value"),
        pytest.param(SOUND | {"re_scale": 0.3, "unheard_of": [None]}, [], "", id="unknown fields"),
        pytest.param(SOUND | {"enc_rnn_size": "3"}, [], 'has enc_rnn_size "3"', id="a size that is text"),
        pytest.param(SOUND | {"dec_model": None}, [], "has dec_model null", id="a cell that is null"),
        pytest.param(SOUND | {"z_size": True}, [], "has z_size true", id="a size that is a truth"),
        pytest.param({"max_seq_len": 180, "max_stroke_len": 40}, [], "", id="nothing but the lengths"),
        pytest.param({"max_seq_len": 180}, [], "set max_node_points", id="no length of nodes"),
        pytest.param({}, ["--max_points", "180"], "set max_node_points", id="no fields at all"),
        pytest.param(None, ["--max_points", "180"], "set max_node_points", id="no file"),
        pytest.param(
            SOUND | {"max_seq_len": -1}, ["--max_points=180"], "", id="a length that the original never filled in"
        ),
        pytest.param("\ufeff" + json.dumps(SOUND), [], "", id="a byte order mark"),
        pytest.param(json.dumps(SOUND | {"de_weight": float("nan")}), [], "", id="a weight that is no number"),
    ],
)
def test_the_weights_tell_what_the_options_do_not(
    imports: Imports, options: Any, words: list[str], note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    about = imports(values("lstm", "hyper"), options, *words)
    model = about["model"]
    found = (model["encoder"]["hidden_size"], model["decoder"]["hidden_size"], model["latent_size"])
    assert found == (SMALL.hidden, SMALL.decoder, SMALL.latent)
    assert (model["encoder"]["cell"], model["decoder"]["cell"]) == ("lstm", "hyper")
    assert model["decoder"]["num_mixtures"] == SMALL.mixtures
    assert (model["max_node_points"], about["longest_points"]) == (None, 180)
    told = capsys.readouterr().err
    assert note in told
    assert bool(note) == bool(told)


@pytest.mark.parametrize(
    ("options", "words", "refusal"),
    [
        pytest.param(
            SOUND | {"enc_rnn_size": 7}, [], "enc_rnn_size is 7 there but 3 in the weights", id="another size"
        ),
        pytest.param(SOUND | {"dec_model": "lstm"}, [], "dec_model is lstm there but hyper in", id="another cell"),
        pytest.param(SOUND | {"max_seq_len": None}, [], "set max_points or data", id="no longest drawing"),
        pytest.param(None, [], "does not exist, so the number of points", id="no file and no longest drawing"),
        pytest.param("[1]", [], "is not a JSON object of options; restore it, or remove it", id="a list"),
        pytest.param("{", [], "model_config.json cannot be read", id="a file that was cut short"),
        pytest.param("[" * 100_000, [], "model_config.json cannot be read", id="a file nested too deep"),
        pytest.param(SOUND, ["--max_points", "-3"], "max_points must be from 0", id="fewer points than none"),
        pytest.param(SOUND, ["--max_node_points", "-3"], "max_node_points must be from 0", id="a node of fewer"),
    ],
)
def test_options_that_cannot_be_are_refused(
    imports: Imports, options: Any, words: list[str], refusal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        imports(values("lstm", "hyper"), options, *words)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert refusal in line


ZW = "sketchBoard/decoder/decoder/rnn/HyperLSTMCell/hyper_jh/zw/super_linear_w"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        pytest.param(
            {"BatchNorm/moving_mean": None},
            "vector-7 has no variable sketchBoard/BatchNorm/moving_mean, from which enc",
            id="a statistic is missing",
        ),
        pytest.param({"BatchNorm/gamma": None}, "has no variable sketchBoard/BatchNorm/gamma", id="a gain is missing"),
        pytest.param({ZW[12:]: None}, f"has no variable {ZW}", id="a part of a cell is missing"),
        pytest.param({"fc_sigma2/linear/fc_w": None}, "has no variable sketchBoard/fc_sigma2/fc_w", id="a layer too"),
        pytest.param({"extra": np.float32(1)}, "has a variable sketchBoard/extra that is not", id="an unknown one"),
        pytest.param({"/other/gamma": np.float32(1)}, "has a variable other/gamma outside", id="one outside the scope"),
        pytest.param(
            {ZW[12:]: np.zeros((6, 3), dtype=np.float32)},
            "scale_down_weight of shape [6, 16] cannot be built from",
            id="an embedding of another width",
        ),
        pytest.param(
            {"gcn_weight_1": np.zeros((8, 2, 2), dtype=np.float32)}, "[8, 2, 2]", id="weights of eight graphs"
        ),
        pytest.param({"BatchNorm/gamma": np.zeros(6)}, "is float64, not float32", id="another precision"),
        pytest.param(
            {
                "decoder/decoder/fc/linear/fc_w": np.zeros((4, 16), dtype=np.float32),
                "decoder/decoder/fc/linear/fc_b": np.zeros(16, dtype=np.float32),
            },
            "decoder.output.weight of shape [15, 4] cannot be built from",
            id="a broken number of mixtures",
        ),
    ],
)
def test_a_variable_that_is_missing_unknown_or_of_another_shape_is_named(
    imports: Imports, changes: dict[str, Any], refusal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights: dict[str, Any] = values("lstm", "hyper")
    for name, array in changes.items():
        key = name[1:] if name.startswith("/") else f"sketchBoard/{name}"
        weights[key] = array
    with pytest.raises(SystemExit):
        imports({name: array for name, array in weights.items() if array is not None}, SOUND)
    (line,) = capsys.readouterr().err.splitlines()
    assert refusal in line


def test_the_scale_comes_from_the_shards(tmp_path: Path, tiny_shards: str, imports: Imports) -> None:
    imports(values("lstm", "lstm"), options_of("lstm", "lstm"), "--scale", "0", "--data", tiny_shards)
    manifest = load_manifest(tiny_shards)
    pretrained = sgloc.load_pretrained(str(tmp_path / "out"))
    assert (pretrained.scale, pretrained.longest_points) == (manifest.scale, manifest.longest_points)
    # An imported model can be used like any other.
    out = tmp_path / "drawn"
    main(["generate", "--checkpoint", str(tmp_path / "out"), "--data", tiny_shards, "--out", str(out), "--count", "2"])
    assert (out / "gallery.png").exists()


def test_mistakes(tmp_path: Path, said: Said) -> None:
    def refused(*words: object) -> str:
        return said("import-tf", tmp_path, "--out", tmp_path / "out", *words)

    assert "pass either --scale or --data" in refused()
    assert "pass either --scale or --data" in refused("--scale", "3", "--data", "shards")
    assert "holds no vector-N.index" in refused("--scale", "3")
    assert "scale must be above 0" in refused("--scale", "-3")
    (tmp_path / "vector-5.index").touch()
    for place in ("nowhere", "vector-5.index", "vector-5"):
        text = said("import-tf", tmp_path / place, "--out", tmp_path / "out", "--scale", "3")
        assert f"{place} is not a folder on this machine; pass the one" in text


@pytest.mark.slow
def test_a_checkpoint_that_tensorflow_cannot_read(tmp_path: Path, said: Said, checkpoints: Path) -> None:
    (tmp_path / "vector-5.index").write_bytes((checkpoints / "lstm" / "vector-100.index").read_bytes()[:-9])
    text = said("import-tf", tmp_path, "--out", tmp_path / "out", "--scale", "3", "--max_points", "9")
    assert "vector-5 cannot be read by TensorFlow" in text


def test_without_tensorflow_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    (tmp_path / "vector-5.index").touch()
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no such thing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = said("import-tf", tmp_path, "--out", tmp_path / "out", "--scale", "20", "--max_points", "9")
    assert "is not available (no such thing); run pip install 'sgloc[tf]'" in text
