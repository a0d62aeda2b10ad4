"""Test of a classifier on unseen drawings: its accuracy and its confusion matrix."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sgloc.data.manifest import load_manifest
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.errors import ConfigError
from sgloc.models.sketch_a_net.batch import RasterPreparation
from sgloc.models.sketch_a_net.load import load_classifier
from sgloc.storage import Storage
from sgloc.strict_json import to_json
from sgloc.terminal import tracked
from sgloc.tf32 import float32_products
from sgloc.train.record import recorded_place

RESULTS, PICTURE = "test.json", "confusion.png"
_BATCH_SIZE = 256
# Beyond this number of categories the axis labels are too small to read.
_MOST_NAMES = 60


@dataclass(frozen=True)
class Tested:
    """Result of a test.

    Attributes:
        categories: names of the categories.
        confusion: int64 [C, C], number of drawings of category i classified as category j.
    """

    categories: list[str]
    confusion: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of all drawings that were classified correctly."""
        return float(np.trace(self.confusion) / self.confusion.sum())


@torch.no_grad()
def test_classifier(run_dir: str, data: str, device: torch.device) -> Tested:
    """Test a run's best checkpoint on all test drawings; write test.json and confusion.png to the run folder.

    Args:
        run_dir: folder or URL of a run of `sgloc train-classifier`.
        data: folder or URL of the shards that the classifier was trained on.
        device: device to compute on.

    Raises:
        SglocError: if the checkpoint or the shards cannot be used, or the folder cannot be written.
    """
    classifier = load_classifier(run_dir, device)
    manifest = load_manifest(data)
    if classifier.data_identity != manifest.identity:
        raise ConfigError(
            f"the classifier in {run_dir} was not trained on the shards {data}; pass the shards that it was trained on"
        )
    reader = ShardReader(data, manifest, "test")
    prepare = RasterPreparation(0, classifier.line_width)
    confusion = np.zeros((len(manifest.categories), len(manifest.categories)), dtype=np.int64)
    with float32_products(device):
        batches = fixed_batches(reader, np.arange(reader.num_sketches), batch_size=_BATCH_SIZE)
        for packed in tracked(batches, "sketches", reader.num_sketches):
            batch = prepare(prepare.load(packed), device)
            found = classifier.model.logits(batch.images).argmax(1).cpu().numpy()
            np.add.at(confusion, (packed.category, found), 1)
    tested = Tested(manifest.categories, confusion)
    summary = _summary(tested, recorded_place(classifier.checkpoint))
    Storage(run_dir).save({RESULTS: to_json(summary, indent=1).encode(), PICTURE: _plot(tested)})
    return tested


def _summary(tested: Tested, checkpoint: str) -> dict[str, Any]:
    counts = tested.confusion.sum(1)
    return {
        "checkpoint": checkpoint,
        "drawings": int(counts.sum()),
        "accuracy": tested.accuracy,
        "categories": {
            name: {"drawings": int(count), "accuracy": int(right) / int(count) if count else None}
            for name, count, right in zip(tested.categories, counts, tested.confusion.diagonal(), strict=True)
        },
        "confusion": tested.confusion.tolist(),
    }


def _plot(tested: Tested) -> bytes:
    """Plot the confusion matrix as PNG, each row as shares of its category's drawings."""
    num_categories = len(tested.categories)
    shares = tested.confusion / np.maximum(tested.confusion.sum(1, keepdims=True), 1)
    side = min(4 + 0.25 * num_categories, 16)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if num_categories <= _MOST_NAMES:
        axes.set_xticks(range(num_categories), tested.categories, rotation=90, fontsize=8)
        axes.set_yticks(range(num_categories), tested.categories, fontsize=8)
    axes.set_xlabel("predicted category")
    axes.set_ylabel("true category")
    axes.set_title(f"{tested.accuracy:.1%} of {tested.confusion.sum():,} test drawings are classified correctly")
    figure.colorbar(image, shrink=0.6, label="share of the category's drawings")
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)  # type: ignore[no-untyped-call]
    return content.getvalue()
