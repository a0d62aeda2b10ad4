"""`sgloc import-tf`: the authors' TensorFlow 1 checkpoints become models of ours.

original_variables.txt puts the names of the original's variables beside ours. Gates stand in the order i, j, f, o in
both; so do the parts of the states (METHOD 6).
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
# TensorFlow's fused batch norm does not take a smaller one.
_BATCH_NORM_EPSILON = 1.001e-5
_TABLE = Path(__file__).with_name("original_variables.txt")
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
    left, tensors, recipes = dict(variables), {}, _recipes(config)
    for name, own in SketchGloc(config).state_dict().items():
        how, taken = recipes[name]
        missing = next((each for each in taken if each not in left), None)
        if missing is not None:
            raise CheckpointError(f"{where} has no variable {_SCOPE}{missing}, of which {name} is made")
        arrays = [left.pop(each) for each in taken]
        listed = ", ".join(f"{_SCOPE}{each} {list(array.shape)}" for each, array in zip(taken, arrays, strict=True))
        try:
            joined = np.stack(arrays) if how == "above" else np.concatenate(arrays, axis=-1)
        except ValueError as error:
            raise CheckpointError(f"{where}: the shapes of {listed} do not fit together") from error
        tensors[name] = torch.from_numpy(np.ascontiguousarray(joined.T if how == "transposed" else joined))
        if tensors[name].shape != own.shape:
            raise CheckpointError(
                f"{where} is of another model: {name} of shape {list(own.shape)} cannot be made of {listed}"
            )
    if left:
        raise CheckpointError(f"{where} has a variable {_SCOPE}{min(left)} that no SketchGloc has")
    return tensors


def _recipes(config: ModelConfig) -> dict[str, tuple[str, list[str]]]:
    """How our tensors are made, and of which variables, by our names; see original_variables.txt."""
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
            # A pattern without a star is one variable.
            taken = dict.fromkeys(pattern.replace("*", gate) for pattern in patterns for gate in "ijfo")
            for ours, theirs in scopes.items():
                recipes[ours + name] = how, [theirs + each for each in taken]
    return recipes


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

    def shape(name: str, num_dimensions: int) -> tuple[int, ...]:
        if name not in variables:
            raise CheckpointError(f"{where} has no variable {_SCOPE}{name}")
        found: tuple[int, ...] = variables[name].shape
        if len(found) != num_dimensions:
            raise CheckpointError(f"{where}: the shape of {_SCOPE}{name}, {list(found)}, cannot be")
        return found

    hyper: dict[str, int] = {}

    def cell_and_size(scope: str) -> tuple[CellName, int]:
        name = next((name for name in _CELLS if f"{scope}/{name}/W_hh" in variables), None)
        if name is None:
            cells = ", ".join(_CELLS)
            raise CheckpointError(f"{where} has no variable {_SCOPE}{scope}/<cell>/W_hh, for none of {cells}")
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
