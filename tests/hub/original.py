"""A reimplementation of the original program's checkpoints and computations, for the tests of `sgloc import-tf`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from sgloc.models.sketchgloc.config import CellName
from tests.oracle import layout, network
from tests.oracle.cells import layer_norm, sigmoid
from tests.patience import PATIENCE

CLASSES = {"lstm": "LSTMCell", "layer_norm": "LayerNormLSTMCell", "hyper": "HyperLSTMCell"}
Arrays = dict[str, npt.NDArray[np.float32]]
FloatArray = npt.NDArray[np.float64]

# Every field of model_config.json with the original's default; the last three fields come from the data.
DEFAULTS: dict[str, Any] = {
    "enc_model": "lstm",
    "enc_rnn_size": 512,
    "dec_model": "hyper",
    "dec_rnn_size": 512,
    "z_size": 128,
    "batch_size": 100,
    "num_mixture": 5,
    "num_sub": 2,
    "de_weight": 1.0,
    "learning_rate": 1e-3,
    "decay_rate": 0.99999,
    "min_learning_rate": 1e-5,
    "grad_clip": 1.0,
    "save_every": 1,
    "num_steps": 1000001,
    "re_scale": 0,
    "use_recurrent_dropout": True,
    "use_input_dropout": False,
    "use_output_dropout": False,
    "recurrent_dropout_prob": 0.9,
    "input_dropout_prob": 0.9,
    "output_dropout_prob": 0.9,
    "random_scale_factor": 0.1,
    "augment_stroke_prob": 0.1,
    "png_scale_ratio": 1,
    "png_rotate_angle": 0,
    "png_translate_dist": 0,
    "png_width": 48,
    "is_training": True,
    "num_per_category": 70000,
    "categories": ["pig", "bee", "flower", "bus", "giraffe"],
    "max_seq_len": 180,
    "max_stroke_len": 83,
    "max_strokes_num": 23,
}
# The other variant of the program has no re_scale and cuts strokes into nodes of five points.
OTHER_VARIANT: dict[str, Any] = {name: value for name, value in DEFAULTS.items() if name != "re_scale"} | {
    "enc_rnn_size": 256,
    "z_size": 64,
    "batch_size": 300,
    "decay_rate": 0.9999,
    "use_recurrent_dropout": False,
    "random_scale_factor": 0.0,
    "augment_stroke_prob": 0.0,
    "max_stroke_len": 5,
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a network's layers; the defaults are small enough to compute by hand."""

    hidden: int = 3
    decoder: int = 4
    latent: int = 5
    hyper: int = 6
    embedding: int = 2
    mixtures: int = 2


SMALL = Sizes()
PUBLISHED = Sizes(hidden=512, decoder=512, latent=128, hyper=256, embedding=32, mixtures=20)


def cell_shapes(
    scope: str, cell: CellName, num_inputs: int, size: int, sizes: Sizes
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of each variable of a cell, in the order in which the original creates them."""
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
        yield from cell_shapes(path, "layer_norm", num_inputs + size, sizes.hyper, sizes)
        for gate in "ijfo":
            for kind in "xh":
                yield f"{path}/hyper_{gate}{kind}/zw/super_linear_w", (sizes.hyper, sizes.embedding)
                yield f"{path}/hyper_{gate}{kind}/zw/super_linear_b", (sizes.embedding,)
                yield f"{path}/hyper_{gate}{kind}/alpha/super_linear_w", (sizes.embedding, size)
            yield f"{path}/hyper_{gate}h/zb/super_linear_w", (sizes.hyper, sizes.embedding)
            yield f"{path}/hyper_{gate}h/beta/super_linear_w", (sizes.embedding, size)


def shapes(encoder: CellName, decoder: CellName, sizes: Sizes = SMALL) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all variables of a network, by name."""
    width = 2 * sizes.hidden
    state = 2 * (sizes.decoder + sizes.hyper) if decoder == "hyper" else 2 * sizes.decoder
    found: dict[str, tuple[int, ...]] = {}
    for direction in ("fw", "bw"):
        found |= cell_shapes(f"ENC1_RNN/{direction}", encoder, 2, sizes.hidden, sizes)
    found |= cell_shapes("decoder/decoder/rnn", decoder, 5 + sizes.latent, sizes.decoder, sizes)
    found |= {f"gcn_weight_{number}": (9, width, width) for number in (1, 2)}
    found |= {f"BatchNorm/{name}": (width,) for name in ("beta", "gamma", "moving_mean", "moving_variance")}
    for scope, shape in (
        ("fc_mu", (width, sizes.latent)),
        ("fc_sigma2", (width, sizes.latent)),
        ("decoder/init_state", (sizes.latent, state)),
        ("decoder/decoder/fc", (sizes.decoder, 3 + 6 * sizes.mixtures)),
    ):
        found |= {f"{scope}/linear/fc_w": shape, f"{scope}/linear/fc_b": shape[1:]}
    return {f"sketchBoard/{name}": shape for name, shape in found.items()}


def values(encoder: CellName, decoder: CellName) -> Arrays:
    """Return random weights of a small network, by variable name."""
    generator = np.random.default_rng(0)
    found = {
        name: (0.4 * generator.normal(size=shape)).astype(np.float32)
        for name, shape in shapes(encoder, decoder).items()
    }
    found["sketchBoard/BatchNorm/moving_variance"] = np.abs(found["sketchBoard/BatchNorm/moving_variance"]) + 1
    return found


def options_of(encoder: CellName, decoder: CellName, sizes: Sizes = SMALL) -> dict[str, Any]:
    """Return every field of model_config.json with the original's defaults, except for the cells and sizes."""
    return DEFAULTS | {
        "enc_model": encoder,
        "enc_rnn_size": sizes.hidden,
        "dec_model": decoder,
        "dec_rnn_size": sizes.decoder,
        "z_size": sizes.latent,
    }


def write(folders: dict[Path, tuple[Arrays, dict[str, Any]]]) -> None:
    """Write checkpoints like the original program, including its training variables; needs TensorFlow."""
    for folder, (arrays, options) in folders.items():
        folder.mkdir(exist_ok=True)
        some = min(arrays)
        left = {
            "sketchBoard/num_of_steps": np.float32(7),
            "sketchBoard/beta1_power": np.float32(0.5),
            f"sketchBoard/{some}/Adam": arrays[some],
            f"sketchBoard/{some}/Adam_1": arrays[some],
            "sketchBoard_3/beta2_power": np.float32(0.5),
        }
        every = {name: np.asarray(array) for name, array in {**arrays, **left}.items()}
        safetensors.numpy.save_file(every, folder / "all.safetensors")
        (folder / "model_config.json").write_text(json.dumps(options, indent=1))
    command = [sys.executable, str(Path(__file__).parent / "write_tf.py"), *map(str, folders)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)


class Original:
    """The original's computations in float64, one vector and one step at a time, using its variable names."""

    def __init__(self, arrays: Arrays, sizes: Sizes = SMALL) -> None:
        self.sizes = sizes
        self.arrays = {name.removeprefix("sketchBoard/"): array.astype(np.float64) for name, array in arrays.items()}

    def linear(self, scope: str, row: FloatArray) -> FloatArray:
        return row @ self.arrays[f"{scope}/linear/fc_w"] + self.arrays[f"{scope}/linear/fc_b"]

    def step(self, scope: str, cell: CellName, row: FloatArray, state: list[FloatArray]) -> list[FloatArray]:
        """Return the new state, in the original's order (METHOD 6)."""
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

    def state_sizes(self, cell: CellName, units: int) -> list[int]:
        return [units, self.sizes.hyper] * 2 if cell == "hyper" else [units] * 2

    def code(self, cell: CellName, strokes: list[FloatArray]) -> FloatArray:
        sizes = self.state_sizes(cell, self.sizes.hidden)
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
        """Draw `count` rows greedily."""
        sizes = self.state_sizes(cell, self.sizes.decoder)
        state = np.split(np.tanh(self.linear("decoder/init_state", code)), np.cumsum(sizes)[:-1])
        row, rows = np.array([0.0, 0.0, 1.0, 0.0, 0.0]), []
        for _ in range(count):
            state = self.step("decoder/decoder/rnn", cell, np.concatenate([row, code]), state)
            row = network.greedy_step(self.linear("decoder/decoder/fc", self.output(cell, state)))
            rows.append(row)
        return rows
