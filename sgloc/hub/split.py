"""Opening a split of shards as input of a trained model."""

from typing import NamedTuple

from sgloc.data.batch import Preparation
from sgloc.data.manifest import load_manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.inference.pretrained import Pretrained


class Split(NamedTuple):
    """A split of shards.

    Attributes:
        reader: reader of the split.
        prepare: preparation that turns packed sketches into batches of undisturbed model input.
    """

    reader: ShardReader
    prepare: Preparation


def open_split(pretrained: Pretrained, data: str, split: str, seed: int) -> Split:
    """Open a split of shards for a model.

    Args:
        pretrained: the model.
        data: folder or URL of the shards.
        split: "train", "valid" or "test".
        seed: seed of all random numbers.

    Raises:
        DataError: if the shards cannot be read.
    """
    manifest = load_manifest(data)
    prepare = Preparation(
        pretrained.scale,
        seed,
        max_node_points=pretrained.max_node_points,
        from_first_point=starts_at_first_point(manifest, pretrained.origin, data),
    )
    return Split(ShardReader(data, manifest, split), prepare)
