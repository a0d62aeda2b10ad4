"""`sgloc import-tf`: import of the authors' TensorFlow 1 checkpoints.

original_variables.txt maps our tensor names to the original's variables. Both use the gate order i, j, f, o and the
same order of the parts of a state (METHOD 6).
"""

import re
import subprocess
import sys
import tempfile
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

Variables = dict[str, npt.NDArray[Any]]

_SCOPE = "sketchBoard/"
_CELLS: dict[str, CellName] = {"LSTMCell": "lstm", "LayerNormLSTMCell": "layer_norm", "HyperLSTMCell": "hyper"}
_CLASSES = {cell: name for name, cell in _CELLS.items()}
_DECODER = "decoder/decoder/rnn"
# The smallest epsilon that TensorFlow's fused batch norm accepts.
_BATCH_NORM_EPSILON = 1.001e-5
_TABLE = Path(__file__).with_name("original_variables.txt")
_CHECKPOINT = re.compile(r"vector-(\d+)\.index")


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        checkpoint: the imported checkpoint.
        num_values: number of values in the model's tensors.
        num_left: number of variables left out because only training needs them.
        max_node_points: maximum number of points in a graph node; None if a node is a whole stroke.
    """

    checkpoint: str
    num_values: int
    num_left: int
    max_node_points: int | None


def find_checkpoint(folder: str) -> Path:
    """Return the path of a folder's newest checkpoint as TensorFlow names it, without .index.

    Raises:
        CheckpointError: if the folder holds no checkpoint.
    """
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder} is not a folder on this machine; pass the one that holds the authors' files")
    found = [(int(match[1]), path) for path in Path(folder).glob("*") if (match := _CHECKPOINT.fullmatch(path.name))]
    if not found:
        raise CheckpointError(
            f"{folder} holds no vector-N.index; pass the folder with the authors' vector-N.index, "
            "vector-N.data-* and model_config.json"
        )
    return max(found)[1].with_suffix("")


def import_tf(
    folder: str, out: str, scale: float, longest_points: int, licence: str, *, max_node_points: int = 0
) -> Imported:
    """Write the newest checkpoint of the original program as a model for `sgloc.load_pretrained`.

    Sizes and cells are derived from the weights. The lengths of drawings and of nodes come from model_config.json; a
    checkpoint without that file can be imported if `longest_points` is set.

    Args:
        folder: local folder with vector-N.index, vector-N.data-* and, optionally, model_config.json.
        out: folder or URL to write to.
        scale: scale of the training data set (METHOD 1), which the original does not store.
        longest_points: number of points of that data set's longest drawing; 0 takes max_seq_len of model_config.json.
        licence: licence of the drawings; empty if unknown.
        max_node_points: maximum number of points in a graph node (METHOD 2); 0 takes it from model_config.json, or
            else makes a node a whole stroke.

    Raises:
        CheckpointError: if a variable is missing, unknown or of another shape; the message names it. Also if
            model_config.json cannot be read or belongs to another checkpoint.
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
        # The original was trained on npz, which defines its own origin. Drawings in other formats start at their first
        # point.
        data={"identity": "", "drawings": None, "categories": None, "licence": licence, "origin": "first_point"},
        training={"imported_from": checkpoint.name, "original_options": options},
        versions={},
    )
    num_values = write_export(out, about, tensors, original.disturb(options), imported_from=checkpoint.name)
    return Imported(str(checkpoint), num_values, num_left, config.max_node_points)


def convert(variables: Variables, config: ModelConfig, where: str) -> dict[str, Tensor]:
    """Build our tensors from the original's variables.

    Args:
        variables: the variables, by name without the scope.
        config: options of the model to build.
        where: how error messages refer to the checkpoint.

    Raises:
        CheckpointError: if a variable is missing, unknown or of another shape; the message names it.
    """
    left, tensors, recipes = dict(variables), {}, _recipes(config)
    for name, own in SketchGloc(config).state_dict().items():
        how, taken = recipes[name]
        missing = next((each for each in taken if each not in left), None)
        if missing is not None:
            raise CheckpointError(f"{where} has no variable {_SCOPE}{missing}, from which {name} is built")
        arrays = [left.pop(each) for each in taken]
        listed = ", ".join(f"{_SCOPE}{each} {list(array.shape)}" for each, array in zip(taken, arrays, strict=True))
        try:
            joined = np.stack(arrays) if how == "above" else np.concatenate(arrays, axis=-1)
        except ValueError as error:
            raise CheckpointError(f"{where}: the shapes of {listed} do not fit together") from error
        tensors[name] = torch.from_numpy(np.ascontiguousarray(joined.T if how == "transposed" else joined))
        if tensors[name].shape != own.shape:
            raise CheckpointError(
                f"{where} holds another model: {name} of shape {list(own.shape)} cannot be built from {listed}"
            )
    if left:
        raise CheckpointError(f"{where} has a variable {_SCOPE}{min(left)} that is not part of SketchGloc")
    return tensors


def _recipes(config: ModelConfig) -> dict[str, tuple[str, list[str]]]:
    """Return, by our tensor names, how each tensor is built and from which variables; see original_variables.txt."""
    scopes = {"": ""}
    for ours, scope, part in (
        ("encoder.strokes.forward_cell.", "ENC1_RNN/fw", config.encoder),
        ("encoder.strokes.backward_cell.", "ENC1_RNN/bw", config.encoder),
        ("decoder.cell.", _DECODER, config.decoder),
    ):
        theirs = f"{scope}/{_CLASSES[part.cell]}/"
        scopes |= {ours: theirs, f"{ours}hyper.": f"{theirs}{_CLASSES['layer_norm']}/"}
    recipes = {}
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, how, *patterns = line.split()
            # A dict removes the duplicates that a pattern without a star yields.
            taken = dict.fromkeys(pattern.replace("*", gate) for pattern in patterns for gate in "ijfo")
            for ours, theirs in scopes.items():
                recipes[ours + name] = how, [theirs + each for each in taken]
    return recipes


def _read_variables(checkpoint: Path) -> tuple[Variables, int]:
    """Read the model's variables, by name without the scope, and the number of other variables."""
    found, num_left = read_with_tensorflow(checkpoint)
    variables = {}
    for name, array in found.items():
        if not name.startswith(_SCOPE):
            raise CheckpointError(
                f"{checkpoint} has a variable {name} outside {_SCOPE}, which is not part of SketchGloc"
            )
        if array.dtype != np.float32:
            raise CheckpointError(f"{checkpoint}: the variable {name} is {array.dtype}, not float32")
        # The original puts the variables of fully connected layers in a scope of their own.
        variables[name.removeprefix(_SCOPE).replace("/linear/", "/")] = array
    return variables, num_left


def read_with_tensorflow(checkpoint: Path) -> tuple[Variables, int]:
    """Read a checkpoint's variables, by name, except those that only training needs.

    Returns:
        The variables, and the number of variables left out.

    Raises:
        ConfigError: if TensorFlow is not installed.
        CheckpointError: if the checkpoint cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = f"{scratch}/variables.safetensors"
        command = [sys.executable, "-m", "sgloc.hub.read_tf", str(checkpoint), file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "the process was terminated")
        if done.returncode == NO_TENSORFLOW:
            raise ConfigError(
                f"TensorFlow, which is needed to read the original's checkpoints, is not available ({said}); "
                "run pip install 'sgloc[tf]'"
            )
        if done.returncode != 0:
            raise CheckpointError(f"{checkpoint} cannot be read by TensorFlow ({said}); restore it")
        with safetensors.safe_open(file, "numpy") as opened:
            num_left = int(opened.metadata()["left"])
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a mapping.
    return found, num_left


def _longest(options: dict[str, Any], folder: str) -> int:
    longest = original.count_of(options, "max_seq_len")
    if longest is None:
        path = Path(folder, original.FILE_NAME)
        missing = "has no valid max_seq_len" if path.exists() else "does not exist"
        raise ConfigError(
            f"{path} {missing}, so the number of points of the longest drawing is unknown; set max_points or data"
        )
    return longest


def _model_config(variables: Variables, options: dict[str, Any], max_node_points: int, where: str) -> ModelConfig:
    """Derive the model's options from the variables and, where these do not suffice, from model_config.json."""

    def shape(name: str, num_dimensions: int) -> tuple[int, ...]:
        if name not in variables:
            raise CheckpointError(f"{where} has no variable {_SCOPE}{name}")
        found: tuple[int, ...] = variables[name].shape
        if len(found) != num_dimensions:
            raise CheckpointError(
                f"{where}: the shape of {_SCOPE}{name}, {list(found)}, has the wrong number of dimensions"
            )
        return found

    hyper: dict[str, int] = {}

    def cell_and_size(scope: str) -> tuple[CellName, int]:
        name = next((name for name in _CELLS if f"{scope}/{name}/W_hh" in variables), None)
        if name is None:
            cells = ", ".join(_CELLS)
            raise CheckpointError(
                f"{where} has no variable {_SCOPE}{scope}/<cell>/W_hh, where <cell> is one of {cells}"
            )
        path = f"{scope}/{name}"
        if _CELLS[name] == "hyper":
            hyper["hyper_size"] = shape(f"{path}/{_CLASSES['layer_norm']}/W_hh", 2)[0]
            hyper["hyper_embedding_size"] = shape(f"{path}/hyper_ix/zw/super_linear_b", 1)[0]
        return _CELLS[name], shape(f"{path}/W_hh", 2)[0]

    encoder, decoder = cell_and_size("ENC1_RNN/fw"), cell_and_size(_DECODER)
    keep = original.recurrent_keep(options)
    num_mixtures = max(1, (shape("decoder/decoder/fc/fc_b", 1)[0] - NUM_PEN_STATES) // 6)
    return ModelConfig(
        EncoderConfig(*encoder, keep),
        DecoderConfig(*decoder, keep, num_mixtures),
        latent_size=shape("fc_mu/fc_b", 1)[0],
        max_node_points=max_node_points or original.node_points(options),
        batch_norm_epsilon=_BATCH_NORM_EPSILON,
        **hyper,  # type: ignore[arg-type]
    )
