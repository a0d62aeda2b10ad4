"""Loading a trained classifier from its run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sgloc.config import rebuilt
from sgloc.errors import CheckpointError
from sgloc.models import recorded_kind
from sgloc.models.sketch_a_net.config import RasterConfig, SketchANetConfig
from sgloc.models.sketch_a_net.network import SketchANet
from sgloc.models.sketch_a_net.recipe import RECIPE
from sgloc.models.trained import build_network
from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch.raster import rasterise
from sgloc.tf32 import float32_products
from sgloc.train.checkpoint.format import read_manifest
from sgloc.train.checkpoint.load import put_weights, read_weights, use_checkpoint


@dataclass(frozen=True)
class Classifier:
    """A trained Sketch-a-Net.

    Attributes:
        model: the network, in evaluation mode.
        line_width: pen width of the images that it was trained on, in pixels.
        checkpoint: the folder that it was loaded from.
        data_identity: SHA-256 of the manifest of the shards that it was trained on.
    """

    model: SketchANet
    line_width: int
    checkpoint: str
    data_identity: str

    @torch.no_grad()
    def classify(self, sketches: Sequence[Sequence[npt.NDArray[np.floating]]]) -> npt.NDArray[np.int64]:
        """Return the likeliest category of each sketch, as an index into the manifest's list of categories.

        Args:
            sketches: sequences of strokes; a stroke is a float [n, 2] array of absolute (x, y) in any unit.

        Returns:
            int64 [B]; -1 for a sketch without strokes or with a non-finite point.
        """
        numbers = [
            number
            for number, strokes in enumerate(sketches)
            if strokes and all(np.isfinite(stroke).all() for stroke in strokes)
        ]
        categories = np.full(len(sketches), -1, dtype=np.int64)
        if numbers:
            strokes = [stroke for number in numbers for stroke in sketches[number]]
            images = rasterise(
                torch.from_numpy(np.concatenate(strokes)).float(),
                torch.tensor([len(stroke) for stroke in strokes]),
                offsets_from_lengths(torch.tensor([len(sketches[number]) for number in numbers])),
                line_width=self.line_width,
            )
            device = self.model.output.weight.device
            with float32_products(device):
                categories[numbers] = self.model.logits(images.to(device)).argmax(1).cpu().numpy()
        return categories


def load_classifier(path: str, device: torch.device) -> Classifier:
    """Load a classifier for evaluation.

    Args:
        path: folder or URL of a run of `sgloc train-classifier`, from which the best checkpoint is loaded, or of one of
            its checkpoints.
        device: device to put the classifier on.

    Raises:
        CheckpointError: if `path` holds no intact checkpoint of a classifier.
    """

    def load(folder: str) -> Classifier:
        manifest = read_manifest(folder)
        if recorded_kind(manifest.config) != SketchANetConfig().kind:
            raise CheckpointError(f"{folder} holds no classifier; pass a run of `sgloc train-classifier`")
        model = build_network(RECIPE, manifest.config, manifest, folder)
        assert isinstance(model, SketchANet)
        put_weights(model, read_weights(folder, manifest), folder)
        line_width = rebuilt(RasterConfig, manifest.config.get("raster", {})).line_width
        return Classifier(model.to(device).eval(), line_width, folder, manifest.data_identity)

    return use_checkpoint(path, load)[1]
