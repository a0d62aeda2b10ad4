"""`sgloc import-tf`: the authors' TensorFlow 1 checkpoints become models of ours.

The names of the original's variables are put beside ours, cell by cell. Kernels are [in, out] there; gates stand in the
order i, j, f, o in both; so do the parts of the states (METHOD 6).
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from torch import Tensor

from sgloc.config import require
from sgloc.errors import CheckpointError, ConfigError
from sgloc.hub import original
from sgloc.hub.export import About, write_export
from sgloc.hub.read_tf import NO_TENSORFLOW
from sgloc.models.sketchgloc.config import CellName, DecoderConfig, EncoderConfig, ModelConfig
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.nn.rows import NUM_PEN_STATES

Array = npt.NDArray[Any]
Variables = dict[str, Array]

_SCOPE = "sketchBoard/"
_CELLS: dict[str, CellName] = {"LSTMCell": "lstm", "LayerNormLSTMCell": "layer_norm", "HyperLSTMCell": "hyper"}
_CLASSES = {cell: name for name, cell in _CELLS.items()}
_DECODER = "decoder/decoder/rnn"
# TensorFlow's fused batch norm does not take a smaller one.
_BATCH_NORM_EPSILON = 1.001e-5
_CHECKPOINT = re.compile(r"vector-(\d+)\.index")


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes:
        checkpoint: which.
        num_values: of the model.
        num_left: variables of the training that are of no use here.
        max_node_points: most points of a graph node; None: a node is a whole stroke.
    """

    checkpoint: str
    num_values: int
    num_left: int
    max_node_points: int | None


def find_checkpoint(folder: str) -> Path:
    """The newest checkpoint of a folder, as TensorFlow names it: without .index.

    Raises:
        CheckpointError: if there is none.
    """
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder} is no folder of this machine; give the one that the authors' files are in")
    found = [(int(match[1]), path) for path in Path(folder).glob("*") if (match := _CHECKPOINT.fullmatch(path.name))]
    if not found:
        raise CheckpointError(
            f"{folder} holds no vector-N.index; give the folder with the authors' vector-N.index, "
            "vector-N.data-* and model_config.json"
        )
    return max(found)[1].with_suffix("")


def import_tf(
    folder: str, out: str, scale: float, longest_points: int, licence: str, *, max_node_points: int = 0
) -> Imported:
    """Write the newest checkpoint of the original as a model that `sgloc.load_pretrained` reads.

    The weights tell the sizes and the cells. model_config.json tells the length of drawings and of nodes; a checkpoint
    without that file can be imported where longest_points is given.

    Args:
        folder: local folder with vector-N.index, vector-N.data-* and, if it is there, model_config.json.
        out: folder or URL to write to.
        scale: of the data set that it was trained on (METHOD 1), which the original does not store.
        longest_points: points of the longest drawing there; 0: the max_seq_len of model_config.json.
        licence: of the drawings, if it is known.
        max_node_points: most points of a graph node (METHOD 2); 0: as model_config.json tells, or whole strokes.

    Raises:
        CheckpointError: if a variable is missing, unknown, or of another shape; it is named. Also if model_config.json
            cannot be read, or belongs to another checkpoint.
        ConfigError: if TensorFlow is not installed, or the scale or the longest drawing is unknown.
    """
    require(0 < scale < float("inf"), "scale", "above 0", scale)
    checkpoint = find_checkpoint(folder)
    options = original.read_options(folder)
    longest_points = longest_points or _longest(options, folder)
    variables, num_left = _read_variables(checkpoint)
    config = _model_config(variables, options, max_node_points, str(checkpoint))
    original.compare(options, asdict(config), folder)
    tensors = convert(variables, config, str(checkpoint))
    about = About(
        model=asdict(config),
        scale=scale,
        longest_points=longest_points,
        # The original was trained on npz, which brings its own origin; what has none starts at its first point.
        data={"identity": "", "drawings": None, "categories": None, "licence": licence, "origin": "first_point"},
        training={"imported_from": checkpoint.name, "original_options": options},
        versions={},
    )
    num_values = write_export(out, about, tensors, original.disturb(options), imported_from=checkpoint.name)
    return Imported(str(checkpoint), num_values, num_left, config.max_node_points)


def convert(variables: Variables, config: ModelConfig, where: str) -> dict[str, Tensor]:
    """Our tensors from the original's variables.

    Args:
        variables: by their names without the scope.
        config: of the model that they make.
        where: what to call the checkpoint in an error.

    Raises:
        CheckpointError: if a variable is missing, unknown, or of another shape; it is named.
    """
    left, tensors = dict(variables), {}
    own = SketchGloc(config).state_dict()
    for name, taken, join in _recipes(config):
        arrays = []
        for each in taken:
            if each not in left:
                raise CheckpointError(f"{where} has no variable {_SCOPE}{each}, of which {name} is made")
            arrays.append(left.pop(each))
        try:
            tensor = torch.from_numpy(np.ascontiguousarray(join(*arrays), dtype=np.float32))
        except ValueError as error:
            raise CheckpointError(f"{where}: the shapes of {_listed(taken, arrays)} do not fit together") from error
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{where} is of another model: {name} of shape {list(own[name].shape)} cannot be made of "
                f"{_listed(taken, arrays)}"
            )
        tensors[name] = tensor
    if left:
        raise CheckpointError(f"{where} has a variable {_SCOPE}{min(left)} that no SketchGloc has")
    return tensors


def _listed(names: tuple[str, ...], arrays: list[Array]) -> str:
    return ", ".join(f"{_SCOPE}{name} {list(array.shape)}" for name, array in zip(names, arrays, strict=True))


# How one of our tensors is made: its name, the variables that are taken, and what becomes of these.
Recipe = tuple[str, tuple[str, ...], Callable[..., Array]]


def _beside(*arrays: Array) -> Array:
    return np.concatenate(arrays, axis=-1)


def _above(*arrays: Array) -> Array:
    return np.stack(arrays)


def _recipes(config: ModelConfig) -> Iterator[Recipe]:
    for ours, theirs in (("forward_cell", "fw"), ("backward_cell", "bw")):
        yield from _cell(config.encoder.cell, f"encoder.strokes.{ours}", f"ENC1_RNN/{theirs}")
    for ours, theirs in (
        ("graph.weight1", "gcn_weight_1"),
        ("graph.weight2", "gcn_weight_2"),
        ("batch_norm.weight", "BatchNorm/gamma"),
        ("batch_norm.bias", "BatchNorm/beta"),
        ("batch_norm.running_mean", "BatchNorm/moving_mean"),
        ("batch_norm.running_var", "BatchNorm/moving_variance"),
    ):
        yield f"encoder.{ours}", (theirs,), np.asarray
    yield from _cell(config.decoder.cell, "decoder.cell", _DECODER)
    for ours, theirs in (
        ("encoder.mean", "fc_mu"),
        ("encoder.log_variance", "fc_sigma2"),
        ("decoder.initial_state", "decoder/init_state"),
        ("decoder.output", "decoder/decoder/fc"),
    ):
        yield f"{ours}.weight", (f"{theirs}/fc_w",), np.transpose
        yield f"{ours}.bias", (f"{theirs}/fc_b",), np.asarray


def _cell(cell: CellName, ours: str, scope: str) -> Iterator[Recipe]:
    theirs = f"{scope}/{_CLASSES[cell]}"
    yield f"{ours}.weight_input", (f"{theirs}/W_xh",), np.asarray
    yield f"{ours}.weight_hidden", (f"{theirs}/W_hh",), np.asarray
    if cell != "layer_norm":
        yield f"{ours}.bias", (f"{theirs}/bias",), np.asarray
    if cell != "lstm":
        for part, layer in (("gate", "ln_all"), ("cell", "ln_c")):
            yield f"{ours}.norm.{part}_gain", (f"{theirs}/{layer}/ln_gamma",), np.asarray
            yield f"{ours}.norm.{part}_bias", (f"{theirs}/{layer}/ln_beta",), np.asarray
    if cell == "hyper":
        yield from _cell("layer_norm", f"{ours}.hyper", theirs)
        hidden = [f"{theirs}/hyper_{gate}h" for gate in "ijfo"]
        every = [*(f"{theirs}/hyper_{gate}x" for gate in "ijfo"), *hidden]
        for name, gates, variable, join in (
            ("scale_down_weight", every, "zw/super_linear_w", _beside),
            ("scale_down_bias", every, "zw/super_linear_b", _beside),
            ("scale_up", every, "alpha/super_linear_w", _above),
            ("shift_down", hidden, "zb/super_linear_w", _beside),
            ("shift_up", hidden, "beta/super_linear_w", _above),
        ):
            yield f"{ours}.{name}", tuple(f"{gate}/{variable}" for gate in gates), join


def _read_variables(checkpoint: Path) -> tuple[Variables, int]:
    """The model's variables by their names without scope, and how many others there are."""
    found, num_left = read_with_tensorflow(checkpoint)
    variables = {}
    for name, array in found.items():
        if not name.startswith(_SCOPE):
            raise CheckpointError(f"{checkpoint} has a variable {name} outside {_SCOPE}, which no SketchGloc has")
        if array.dtype != np.float32:
            raise CheckpointError(f"{checkpoint}: the variable {name} is {array.dtype}, not float32")
        # Its fully connected layers are in a scope of their own.
        variables[name.removeprefix(_SCOPE).replace("/linear/", "/")] = array
    return variables, num_left


def read_with_tensorflow(checkpoint: Path) -> tuple[Variables, int]:
    """A checkpoint's variables by their names, without those that only training needs, and how many those are.

    Raises:
        ConfigError: if TensorFlow is not installed.
        CheckpointError: if the checkpoint cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = f"{scratch}/variables.safetensors"
        command = [sys.executable, "-m", "sgloc.hub.read_tf", str(checkpoint), file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it was ended")
        if done.returncode == NO_TENSORFLOW:
            raise ConfigError(
                f"TensorFlow, which reads the original's checkpoints, is not available ({said}); "
                "run pip install 'sgloc[tf]'"
            )
        if done.returncode != 0:
            raise CheckpointError(f"{checkpoint} cannot be read by TensorFlow ({said}); restore it")
        with safetensors.safe_open(file, "numpy") as opened:
            num_left = int(opened.metadata()["left"])
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no mapping.
    return found, num_left


def _longest(options: dict[str, Any], folder: str) -> int:
    longest = original.count_of(options, "max_seq_len")
    if longest is None:
        path = Path(folder, original.FILE_NAME)
        missing = "tells no max_seq_len," if path.exists() else "does not exist, which would tell"
        raise ConfigError(f"{path} {missing} the points of the longest drawing; give --max_points or --data")
    return longest


def _model_config(variables: Variables, options: dict[str, Any], max_node_points: int, where: str) -> ModelConfig:
    """The model's shape, by the variables there are; what these do not tell, by model_config.json."""

    def cell_of(scope: str) -> CellName:
        for name, cell in _CELLS.items():
            if f"{scope}/{name}/W_hh" in variables:
                return cell
        raise CheckpointError(f"{where} has no variable {_SCOPE}{scope}/<cell>/W_hh, for none of {', '.join(_CELLS)}")

    def shape(name: str, num_dimensions: int) -> tuple[int, ...]:
        if name not in variables:
            raise CheckpointError(f"{where} has no variable {_SCOPE}{name}")
        found: tuple[int, ...] = variables[name].shape
        if len(found) != num_dimensions:
            raise CheckpointError(f"{where}: the shape of {_SCOPE}{name}, {list(found)}, cannot be")
        return found

    encoder, decoder = cell_of("ENC1_RNN/fw"), cell_of(_DECODER)
    hyper: dict[str, int] = {}
    for scope, cell in (("ENC1_RNN/fw", encoder), (_DECODER, decoder)):
        if cell == "hyper":
            path = f"{scope}/{_CLASSES['hyper']}"
            hyper = {
                "hyper_size": shape(f"{path}/{_CLASSES['layer_norm']}/W_hh", 2)[0],
                "hyper_embedding_size": shape(f"{path}/hyper_ix/zw/super_linear_b", 1)[0],
            }
    (num_outputs,) = shape("decoder/decoder/fc/fc_b", 1)
    keep = original.recurrent_keep(options)
    return ModelConfig(
        EncoderConfig(encoder, shape(f"ENC1_RNN/fw/{_CLASSES[encoder]}/W_hh", 2)[0], keep),
        DecoderConfig(
            decoder,
            shape(f"{_DECODER}/{_CLASSES[decoder]}/W_hh", 2)[0],
            keep,
            num_mixtures=max(1, (num_outputs - NUM_PEN_STATES) // 6),
        ),
        latent_size=shape("fc_mu/fc_b", 1)[0],
        max_node_points=max_node_points or original.node_points(options),
        batch_norm_epsilon=_BATCH_NORM_EPSILON,
        **hyper,  # type: ignore[arg-type]
    )
