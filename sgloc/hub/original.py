"""model_config.json, which the original program writes beside its checkpoints: what it tells that the weights do not.

The original writes every field of its options there. The weights themselves tell the sizes and the cells; its fields
num_mixture and num_sub change nothing in its network (METHOD 11).
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgloc.errors import CheckpointError
from sgloc.models.sketchgloc.config import EncoderConfig

logger = logging.getLogger(__name__)

FILE_NAME = "model_config.json"
# What the file calls the sizes and the cells.
_SIZES = {
    "enc_model": "encoder.cell",
    "enc_rnn_size": "encoder.hidden_size",
    "dec_model": "decoder.cell",
    "dec_rnn_size": "decoder.hidden_size",
    "z_size": "latent_size",
}
# The original cuts strokes at max_stroke_len. Where that is the 99.9th percentile of its data set's strokes, which is
# never so small, METHOD 2 takes whole strokes; a smaller one is the setting of short nodes.
_LEAST_PERCENTILE = 10


def read_options(folder: str) -> dict[str, Any]:
    """All fields of a folder's model_config.json; none if there is no such file.

    Raises:
        CheckpointError: if it cannot be read, or is no object.
    """
    path = Path(folder, FILE_NAME)
    otherwise = "restore it, or remove it and give --max_points"
    try:
        # Infinity and NaN are no JSON; they stay the words that they are.
        options = json.loads(path.read_bytes(), parse_constant=str)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {otherwise}") from error
    if not isinstance(options, dict):
        raise CheckpointError(f"{path} is not an object of options; {otherwise}")
    return options


def count_of(options: Mapping[str, Any], name: str) -> int | None:
    """A field that counts something; None where there is none above 0."""
    value = options.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def node_points(options: Mapping[str, Any]) -> int | None:
    """Most points of a graph node (METHOD 2); None: a node is a whole stroke."""
    longest = count_of(options, "max_stroke_len")
    return longest if longest is not None and longest < _LEAST_PERCENTILE else None


def disturb(options: Mapping[str, Any]) -> float | None:
    """How far strokes were moved in training, r of METHOD 3; None where the file does not tell."""
    value = options.get("re_scale")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def compare(options: Mapping[str, Any], found: Mapping[str, Any], folder: str) -> None:
    """See that the file belongs to the checkpoint, whose weights tell the sizes; fields that are missing where it
    matters, or of another type than the original writes, are logged.

    Args:
        options: the file's fields.
        found: the model's configuration by its weights, as `asdict` gives it.
        folder: where both are.

    Raises:
        CheckpointError: if a size is another than that of the weights.
    """
    if count_of(options, "max_stroke_len") is None and found["max_node_points"] is None:
        logger.warning(
            "no max_stroke_len of %s tells the points of a node: whole strokes are taken; "
            "if the checkpoint was trained with shorter nodes, give --max_node_points",
            FILE_NAME,
        )
    for theirs, ours in _SIZES.items():
        section, _, name = ours.rpartition(".")
        own = (found[section] if section else found)[name]
        value = options.get(theirs, own)
        if type(value) is not type(own):
            said = json.dumps(value)
            logger.warning("%s has %s %s, which is not what it must be: %s is taken", FILE_NAME, theirs, said, own)
        elif value != own:
            raise CheckpointError(
                f"{folder}/{FILE_NAME} belongs to another checkpoint: {theirs} is {value} there, {own} by the weights; "
                "put the checkpoint's own file there, or remove it and give --max_points"
            )


def recurrent_keep(options: Mapping[str, Any]) -> float:
    """Probability that recurrent dropout kept a unit in training; the published one where the file does not tell."""
    if options.get("use_recurrent_dropout") is False:
        return 1.0
    keep = options.get("recurrent_dropout_prob")
    return keep if isinstance(keep, float) and 0 < keep <= 1 else EncoderConfig().recurrent_keep
