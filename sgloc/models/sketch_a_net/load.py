"""A trained classifier, from its run."""

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
        model: in evaluation mode.
        line_width: of the images that it knows, in pixels.
        checkpoint: the folder it was read from.
        data_identity: SHA-256 of the manifest of the shards whose training drawings it has seen.
    """

    model: SketchANet
    line_width: int
    checkpoint: str
    data_identity: str

    @torch.no_grad()
    def classify(self, sketches: Sequence[Sequence[npt.NDArray[np.floating]]]) -> npt.NDArray[np.int64]:
        """The likeliest categories, as numbers into the manifest's list.

        Args:
            sketches: each a sequence of strokes, float [n, 2] arrays of absolute (x, y) in any unit.

        Returns:
            int64 [B]; -1 for a sketch without a stroke, and for one with a point that is not finite.
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
        path: folder or URL of a run of `sgloc train-classifier`, of which the best checkpoint is taken; or of one of
            its checkpoints.
        device: to put it on.

    Raises:
        CheckpointError: if there is no whole checkpoint of a classifier there.
    """

    def load(folder: str) -> Classifier:
        manifest = read_manifest(folder)
        if recorded_kind(manifest.config) != SketchANetConfig().kind:
            raise CheckpointError(f"{folder} is not of a classifier; give a run of `sgloc train-classifier`")
        model = build_network(RECIPE, manifest.config, manifest, folder)
        assert isinstance(model, SketchANet)
        put_weights(model, read_weights(folder, manifest), folder)
        line_width = rebuilt(RasterConfig, manifest.config.get("raster", {})).line_width
        return Classifier(model.to(device).eval(), line_width, folder, manifest.data_identity)

    return use_checkpoint(path, load)[1]
