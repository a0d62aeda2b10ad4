"""`sgloc import-tf`: checkpoints that TensorFlow wrote under the original's names become models of ours."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

import sgloc
from sgloc.cli import main
from sgloc.config import CellName, ModelConfig
from sgloc.data.manifest import load_manifest
from sgloc.evaluate import import_tf
from sgloc.evaluate.import_tf import convert
from sgloc.nn.sketchgloc import SketchGloc
from tests.commands import Said
from tests.nn.test_cells import CELLS
from tests.oracle import layout, network
from tests.oracle.cells import layer_norm, sigmoid

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)
pytestmark = pytest.mark.slow

NAMES = Path(__file__).parents[3] / "shared" / "tf-variables.txt"
HIDDEN, DECODER, LATENT, HYPER, EMBEDDING, MIXTURES = 3, 4, 5, 6, 2, 2
CLASSES = {"lstm": "LSTMCell", "layer_norm": "LayerNormLSTMCell", "hyper": "HyperLSTMCell"}
Arrays = dict[str, npt.NDArray[np.float32]]
FloatArray = npt.NDArray[np.float64]


def cell_shapes(scope: str, cell: CellName, num_inputs: int, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The original's variables of a cell, as its code makes them."""
    path = f"{scope}/{CLASSES[cell]}"
    yield f"{path}/W_xh", (num_inputs, 4 * size)
    yield f"{path}/W_hh", (size, 4 * size)
    if cell != "layer_norm":
        yield f"{path}/bias", (4 * size,)
    if cell != "lstm":
        for layer, width in (("ln_all", 4 * size), ("ln_c", size)):
            yield f"{path}/{layer}/ln_gamma", (width,)
            yield f"{path}/{layer}/ln_beta", (width,)
    if cell == "hyper":
        yield from cell_shapes(path, "layer_norm", num_inputs + size, HYPER)
        for gate in "ijfo":
            for kind in "xh":
                yield f"{path}/hyper_{gate}{kind}/zw/super_linear_w", (HYPER, EMBEDDING)
                yield f"{path}/hyper_{gate}{kind}/zw/super_linear_b", (EMBEDDING,)
                yield f"{path}/hyper_{gate}{kind}/alpha/super_linear_w", (EMBEDDING, size)
            yield f"{path}/hyper_{gate}h/zb/super_linear_w", (HYPER, EMBEDDING)
            yield f"{path}/hyper_{gate}h/beta/super_linear_w", (EMBEDDING, size)


def shapes(encoder: CellName, decoder: CellName) -> dict[str, tuple[int, ...]]:
    width = 2 * HIDDEN
    state = {"lstm": 2 * DECODER, "layer_norm": 2 * DECODER, "hyper": 2 * (DECODER + HYPER)}[decoder]
    found: dict[str, tuple[int, ...]] = {}
    for direction in ("fw", "bw"):
        found |= cell_shapes(f"ENC1_RNN/{direction}", encoder, 2, HIDDEN)
    found |= cell_shapes("decoder/decoder/rnn", decoder, 5 + LATENT, DECODER)
    found |= {f"gcn_weight_{number}": (9, width, width) for number in (1, 2)}
    found |= {f"BatchNorm/{name}": (width,) for name in ("beta", "gamma", "moving_mean", "moving_variance")}
    for scope, sizes in (
        ("fc_mu", (width, LATENT)),
        ("fc_sigma2", (width, LATENT)),
        ("decoder/init_state", (LATENT, state)),
        ("decoder/decoder/fc", (DECODER, 3 + 6 * MIXTURES)),
    ):
        found |= {f"{scope}/linear/fc_w": sizes, f"{scope}/linear/fc_b": sizes[1:]}
    return {f"sketchBoard/{name}": shape for name, shape in found.items()}


def values(encoder: CellName, decoder: CellName) -> Arrays:
    generator = np.random.default_rng(0)
    found = {
        name: (0.4 * generator.normal(size=shape)).astype(np.float32)
        for name, shape in shapes(encoder, decoder).items()
    }
    found["sketchBoard/BatchNorm/moving_variance"] = np.abs(found["sketchBoard/BatchNorm/moving_variance"]) + 1
    return found


def write(folder: Path, arrays: dict[str, Any], **options: Any) -> Path:
    """A checkpoint as the original's program saves it, with what its training leaves there."""
    folder.mkdir(exist_ok=True)
    some = next(name for name in arrays if name.startswith("sketchBoard/"))
    left = {
        "sketchBoard/num_of_steps": np.float32(7),
        "sketchBoard/beta1_power": np.float32(0.5),
        f"sketchBoard/{some}/Adam": arrays[some],
        f"sketchBoard/{some}/Adam_1": arrays[some],
        "sketchBoard_3/beta2_power": np.float32(0.5),
    }
    safetensors.numpy.save_file({name: np.asarray(array) for name, array in {**arrays, **left}.items()}, folder / "all")
    command = [sys.executable, str(Path(__file__).parent / "write_tf.py"), str(folder / "all"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    config = {"max_seq_len": 40, "z_size": LATENT, "num_mixture": MIXTURES, "batch_size": 100, **options}
    (folder / "model_config.json").write_text(json.dumps(config))
    return folder


def import_it(folder: Path, out: Path) -> None:
    main(["import-tf", str(folder), "--out", str(out), "--scale", "20"])


class Original:
    """The original's program, one vector and one step at a time, by the names of its variables; float64."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = {name.removeprefix("sketchBoard/"): array.astype(np.float64) for name, array in arrays.items()}

    def linear(self, scope: str, row: FloatArray) -> FloatArray:
        return row @ self.arrays[f"{scope}/linear/fc_w"] + self.arrays[f"{scope}/linear/fc_b"]

    def step(self, scope: str, cell: CellName, row: FloatArray, state: list[FloatArray]) -> list[FloatArray]:
        """The new state, in the original's order; see METHOD 6."""
        path = f"{scope}/{CLASSES[cell]}"
        at = {name.removeprefix(f"{path}/"): array for name, array in self.arrays.items() if name.startswith(path)}
        if cell == "lstm":
            c, h = state
            i, j, f, o = np.split(row @ at["W_xh"] + h @ at["W_hh"] + at["bias"], 4)
            c = c * sigmoid(f + 1) + sigmoid(i) * np.tanh(j)
            return [c, np.tanh(c) * sigmoid(o)]
        if cell == "layer_norm":
            h, c = state
            return self.normed(at, np.split(row @ at["W_xh"] + h @ at["W_hh"], 4), c)
        h, hyper_h, c, hyper_c = state
        hyper_h, hyper_c = self.step(path, "layer_norm", np.concatenate([row, h]), [hyper_h, hyper_c])
        of_input, of_hidden, biases = (np.split(each, 4) for each in (row @ at["W_xh"], h @ at["W_hh"], at["bias"]))
        gates = []
        for gate, x_part, h_part, bias in zip("ijfo", of_input, of_hidden, biases, strict=True):

            def scale(kind: str, gate: str = gate) -> FloatArray:
                name = f"hyper_{gate}{kind}"
                embedded = hyper_h @ at[f"{name}/zw/super_linear_w"] + at[f"{name}/zw/super_linear_b"]
                return embedded @ at[f"{name}/alpha/super_linear_w"]

            shift = hyper_h @ at[f"hyper_{gate}h/zb/super_linear_w"] @ at[f"hyper_{gate}h/beta/super_linear_w"]
            gates.append(scale("x") * x_part + scale("h") * h_part + shift + bias)
        h, c = self.normed(at, gates, c)
        return [h, hyper_h, c, hyper_c]

    @staticmethod
    def normed(at: dict[str, FloatArray], gates: list[FloatArray], c: FloatArray) -> list[FloatArray]:
        gains, biases = np.split(at["ln_all/ln_gamma"], 4), np.split(at["ln_all/ln_beta"], 4)
        i, j, f, o = (layer_norm(*each) for each in zip(gates, gains, biases, strict=True))
        c = c * sigmoid(f + 1) + sigmoid(i) * np.tanh(j)
        return [np.tanh(layer_norm(c, at["ln_c/ln_gamma"], at["ln_c/ln_beta"])) * sigmoid(o), c]

    def output(self, cell: CellName, state: list[FloatArray]) -> FloatArray:
        return state[1] if cell == "lstm" else state[0]

    def code(self, cell: CellName, strokes: list[FloatArray]) -> FloatArray:
        sizes = {"lstm": [HIDDEN] * 2, "layer_norm": [HIDDEN] * 2, "hyper": [HIDDEN, HYPER] * 2}[cell]
        embeddings = []
        for stroke in strokes:
            ends = []
            for direction, points in (("fw", stroke), ("bw", stroke[::-1])):
                state = [np.zeros(size) for size in sizes]
                for point in points:
                    state = self.step(f"ENC1_RNN/{direction}", cell, point, state)
                ends.append(self.output(cell, state))
            embeddings.append(np.concatenate(ends))
        adjacency = layout.adjacency([layout.node_box(stroke) for stroke in strokes])
        weights = self.arrays["gcn_weight_1"], self.arrays["gcn_weight_2"]
        g = network.grid_convolution(*weights, np.stack(embeddings), adjacency)
        norm = {name: self.arrays[f"BatchNorm/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")}
        scaled = (g - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1.001e-5)
        return self.linear("fc_mu", np.tanh(scaled * norm["gamma"] + norm["beta"]))

    def drawing(self, cell: CellName, code: FloatArray, count: int) -> list[FloatArray]:
        """So many rows, drawn greedily."""
        sizes = {"lstm": [DECODER] * 2, "layer_norm": [DECODER] * 2, "hyper": [DECODER, HYPER] * 2}[cell]
        state = np.split(np.tanh(self.linear("decoder/init_state", code)), np.cumsum(sizes)[:-1])
        row, rows = np.array([0.0, 0.0, 1.0, 0.0, 0.0]), []
        for _ in range(count):
            state = self.step("decoder/decoder/rnn", cell, np.concatenate([row, code]), state)
            row = network.greedy_step(self.linear("decoder/decoder/fc", self.output(cell, state)))
            rows.append(row)
        return rows


@pytest.mark.parametrize("cell", CELLS)
def test_a_checkpoint_computes_what_the_original_does(
    cell: CellName, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = values(cell, cell)
    # So that it does not end at once.
    arrays["sketchBoard/decoder/decoder/fc/linear/fc_b"][:3] = [3, 2, -9]
    import_it(write(tmp_path / "tf", arrays, enc_model=cell, dec_model=cell, enc_rnn_size=HIDDEN), tmp_path / "out")
    assert "vector-2000, scale 20; 5 variables of its training are left out" in capsys.readouterr().out
    pretrained = sgloc.load_pretrained(str(tmp_path / "out"))
    assert (pretrained.scale, pretrained.longest_points) == (20.0, 40)
    sketch = np.array([[10, 5, 0], [3, -2, 1], [20, 1, 0], [5, 5, 0], [1, 1, 1]])
    points = np.cumsum(sketch[:, :2], axis=0) / 20
    original = Original(arrays)
    (code,) = pretrained.encode([sketch])
    np.testing.assert_allclose(code, original.code(cell, [points[:2], points[2:]]), rtol=2e-4, atol=2e-5)
    (rows,) = pretrained.draw_codes([code], 0.0, 7, 0, 1)
    expected = original.drawing(cell, code.astype(np.float64), 7)
    assert len(rows) == 7
    np.testing.assert_allclose(rows.numpy(), np.stack(expected), rtol=2e-3, atol=2e-3)
    assert np.ptp(rows.numpy()[:, :2], axis=0).min() > 0.01


def test_the_published_names_and_shapes_are_all_known() -> None:
    if not NAMES.exists():
        pytest.skip(f"{NAMES} is not there")
    lines = [line.split("  ") for line in NAMES.read_text().splitlines() if not line.startswith("#")]
    published = {name: json.loads(shape) for name, shape, kind in lines if kind != "adam" and "num_of" not in name}
    config = ModelConfig(batch_norm_epsilon=1.001e-5)
    variables = {
        name.removeprefix("sketchBoard/").replace("/linear/", "/"): np.zeros(shape, dtype=np.float32)
        for name, shape in published.items()
    }
    tensors = convert(variables, config, "published")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in SketchGloc(config).state_dict().items()
    }


def test_a_variable_that_is_missing_unknown_or_of_another_shape_is_named(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = values("lstm", "hyper")
    folder = write(tmp_path / "tf", {name: array for name, array in whole.items() if "moving_mean" not in name})
    refusal = said("import-tf", folder, "--out", tmp_path / "out", "--scale", "20")
    assert "vector-2000 has no variable sketchBoard/BatchNorm/moving_mean, of which encoder" in refusal

    def refused(arrays: dict[str, Any], **options: Any) -> str:
        # Without TensorFlow, which takes seconds each time.
        monkeypatch.setattr(import_tf, "read_with_tensorflow", lambda checkpoint: (arrays, 0))
        (folder / "model_config.json").write_text(json.dumps({"max_seq_len": 40, **options}))
        return said("import-tf", folder, "--out", tmp_path / "out", "--scale", "20")

    zw = "sketchBoard/decoder/decoder/rnn/HyperLSTMCell/hyper_jh/zw/super_linear_w"
    for name in ("sketchBoard/BatchNorm/gamma", zw, "sketchBoard/fc_sigma2/linear/fc_w"):
        text = refused({key: array for key, array in whole.items() if key != name})
        assert f"has no variable {name.replace('/linear/', '/')}" in text
    assert "has a variable sketchBoard/extra that no SketchGloc has" in refused(
        {**whole, "sketchBoard/extra": np.float32(1)}
    )
    assert "has a variable other/gamma outside" in refused({**whole, "other/gamma": np.float32(1)})
    text = refused({**whole, zw: np.zeros((HYPER, EMBEDDING + 1), dtype=np.float32)})
    assert "decoder.cell.scale_down_weight of shape" in text
    assert f"{zw} [{HYPER}, {EMBEDDING + 1}]" in text
    text = refused({**whole, "sketchBoard/gcn_weight_1": np.zeros((8, 2, 2), dtype=np.float32)})
    assert "encoder.graph.weight1" in text
    assert "[8, 2, 2]" in text
    assert "is float64, not float32" in refused({**whole, "sketchBoard/BatchNorm/gamma": np.zeros(2 * HIDDEN)})
    assert "enc_rnn_size is 7 there, 3 here" in refused(whole, enc_rnn_size=7)
    assert "dec_model is lstm there, hyper here" in refused(whole, dec_model="lstm")
    assert "tells no max_seq_len; give --max_points or --data" in refused(whole, max_seq_len=None)


def test_the_scale_comes_from_the_shards(tmp_path: Path, tiny_shards: str) -> None:
    folder = write(tmp_path / "tf", values("lstm", "lstm"))
    main(["import-tf", str(folder), "--out", str(tmp_path / "out"), "--data", tiny_shards])
    manifest = load_manifest(tiny_shards)
    pretrained = sgloc.load_pretrained(str(tmp_path / "out"))
    assert (pretrained.scale, pretrained.longest_points) == (manifest.scale, manifest.longest_points)
    # What was imported is a model like any other.
    out = tmp_path / "drawn"
    main(["generate", "--checkpoint", str(tmp_path / "out"), "--data", tiny_shards, "--out", str(out), "--count", "2"])
    assert (out / "gallery.png").exists()


def test_mistakes(tmp_path: Path, said: Said) -> None:
    def refused(*words: object) -> str:
        return said("import-tf", tmp_path, "--out", tmp_path / "out", *words)

    assert "give either --scale or --data" in refused()
    assert "give either --scale or --data" in refused("--scale", "3", "--data", "shards")
    assert "holds no vector-N.index" in refused("--scale", "3")
    (tmp_path / "vector-5.index").write_bytes(b"nonsense")
    assert "model_config.json cannot be read" in refused("--scale", "3")
    (tmp_path / "model_config.json").write_text('{"max_seq_len": 9}')
    assert "cannot be read by TensorFlow" in refused("--scale", "3")
    assert "scale must be above 0" in refused("--scale", "-3")


def test_without_tensorflow_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    folder = write(tmp_path / "tf", values("lstm", "lstm"))
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no such thing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = said("import-tf", folder, "--out", tmp_path / "out", "--scale", "20")
    assert "cannot be had (no such thing); run pip install 'sgloc[tf]'" in text
