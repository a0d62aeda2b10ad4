"""Reading model_config.json, which the original program writes beside its checkpoints.

The file holds all of the original's options; it is needed for those that cannot be derived from the weights, as sizes
and cells can. Its fields num_mixture and num_sub have no effect on the network (METHOD 11).
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
# The file's names of the sizes and cells, and ours.
_SIZES = {
    "enc_model": "encoder.cell",
    "enc_rnn_size": "encoder.hidden_size",
    "dec_model": "decoder.cell",
    "dec_rnn_size": "decoder.hidden_size",
    "z_size": "latent_size",
}
# The original cuts strokes at max_stroke_len. If that is the 99.9th percentile of the stroke lengths in its data set,
# which is never below this limit, METHOD 2 takes whole strokes instead. A smaller value is the short-node setting.
_LEAST_PERCENTILE = 10


def read_options(folder: str) -> dict[str, Any]:
    """Read all fields of a folder's model_config.json; empty if the file does not exist.

    Raises:
        CheckpointError: if the file cannot be read or is not a JSON object.
    """
    path = Path(folder, FILE_NAME)
    otherwise = "restore it, or remove it and set max_points"
    try:
        # Infinity and NaN are not JSON; keep them as strings.
        options = json.loads(path.read_bytes(), parse_constant=str)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {otherwise}") from error
    if not isinstance(options, dict):
        raise CheckpointError(f"{path} is not a JSON object of options; {otherwise}")
    return options


def count_of(options: Mapping[str, Any], name: str) -> int | None:
    """Return an integer field; None if it is missing, not an integer or not above 0."""
    value = options.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def node_points(options: Mapping[str, Any]) -> int | None:
    """Return the maximum number of points in a graph node (METHOD 2); None if a node is a whole stroke."""
    longest = count_of(options, "max_stroke_len")
    return longest if longest is not None and longest < _LEAST_PERCENTILE else None


def disturb(options: Mapping[str, Any]) -> float | None:
    """Return how far strokes were moved in training (r of METHOD 3); None if the file does not say."""
    value = options.get("re_scale")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def compare(options: Mapping[str, Any], found: Mapping[str, Any], folder: str) -> None:
    """Check that the file belongs to the checkpoint by comparing it with the sizes derived from the weights.

    Fields that are needed but missing, or of another type than the original writes, are logged as warnings.

    Args:
        options: the file's fields.
        found: the model's configuration derived from the weights, as returned by `asdict`.
        folder: folder of both.

    Raises:
        CheckpointError: if a size or cell differs from that of the weights.
    """
    if count_of(options, "max_stroke_len") is None and found["max_node_points"] is None:
        logger.warning(
            "no valid max_stroke_len in %s, so each node is taken to be a whole stroke; "
            "if the checkpoint was trained with shorter nodes, set max_node_points",
            FILE_NAME,
        )
    for theirs, ours in _SIZES.items():
        section, _, name = ours.rpartition(".")
        own = (found[section] if section else found)[name]
        value = options.get(theirs, own)
        if type(value) is not type(own):
            said = json.dumps(value)
            logger.warning(
                "%s has %s %s, which is of the wrong type; using %s from the weights", FILE_NAME, theirs, said, own
            )
        elif value != own:
            raise CheckpointError(
                f"{folder}/{FILE_NAME} belongs to another checkpoint: {theirs} is {value} there but {own} in the "
                "weights; put the checkpoint's own file there, or remove it and set max_points"
            )


def recurrent_keep(options: Mapping[str, Any]) -> float:
    """Return the probability that recurrent dropout kept a unit; the published value if the file does not say."""
    if options.get("use_recurrent_dropout") is False:
        return 1.0
    keep = options.get("recurrent_dropout_prob")
    return keep if isinstance(keep, float) and 0 < keep <= 1 else EncoderConfig().recurrent_keep
