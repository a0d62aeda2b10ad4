"""Running a batch of test sketches through the model and collecting the metrics' arrays (METHOD 10)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sgloc.data.batch import PackedBatch, Preparation
from sgloc.evaluate.metric import Arrays, Metric, Models, Originals, Sketches
from sgloc.inference.redraw import redraw
from sgloc.inference.sketches import Polylines, strokes_of
from sgloc.inference.stroke_matching import placing_moves

Value = TypeVar("Value")

# Prefixes of array names: arrays of all sketches that every rank needs, and the two kinds of measured sketches.
SHARED = "shared"
DRAWN, GIVEN = "drawn", "given"


@dataclass(frozen=True)
class Measuring:
    """Measures batches with a set of metrics.

    Attributes:
        models: the model and the classifier.
        prepare: preparation that turns sketches into undisturbed model input.
        metrics: the metrics that apply to the models.
        tasks: for each task name, how far strokes are moved (r of METHOD 3).
        temperature: sampling temperature (METHOD 9); 0 is greedy.
        max_points: maximum number of points of a drawing.
    """

    models: Models
    prepare: Preparation
    metrics: Sequence[Metric]
    tasks: Mapping[str, float]
    temperature: float
    max_points: int

    @torch.no_grad()
    def measure(self, packed: PackedBatch) -> Arrays:
        """Compute the arrays of a batch.

        Returns:
            Arrays with one row per sketch:

            - label: int64, the category.
            - shared/<metric>/<array>: from the originals.
            - <task>/is_empty: bool, whether the model drew nothing.
            - <task>/drawn/<metric>/<array>: from the sketches that the model drew.
            - <task>/given/<metric>/<array>: from the sketches that the model was given.
        """
        pretrained = self.models.pretrained
        clean = self.prepare(packed, pretrained.device)
        y = pretrained.model.encode(clean).y
        strokes = strokes_of(clean, clean.points, pretrained.scale)
        originals = Originals(packed.category.astype(np.int64), strokes, y.float().cpu().numpy())
        kept: Arrays = {"label": originals.labels}
        for metric in self.metrics:
            kept |= named(f"{SHARED}/{metric.name}", metric.share(originals))
        for task, disturb in self.tasks.items():
            drawn, given = self._redraw(packed, disturb, originals)
            kept[f"{task}/is_empty"] = np.array([not one for one in drawn.strokes])
            for kind, sketches in ((DRAWN, drawn), (GIVEN, given)):
                for metric in self.metrics:
                    kept |= named(f"{task}/{kind}/{metric.name}", metric.collect(sketches, self.models))
        return kept

    def _redraw(self, packed: PackedBatch, disturb: float, originals: Originals) -> tuple[Sketches, Sketches]:
        """Return the sketches that the model drew and those that it was given."""
        pretrained = self.models.pretrained
        batch = replace(self.prepare, disturb=disturb)(packed, pretrained.device)
        y = pretrained.model.encode(batch).y
        found = redraw(
            pretrained.model, batch, pretrained.scale, y, max_points=self.max_points, temperature=self.temperature
        )
        given = [one.disturbed for one in found]
        # A non-finite point cannot be drawn; such a drawing counts as empty.
        drawn = [one.redrawn if all(np.isfinite(line).all() for line in one.redrawn) else [] for one in found]
        moves = [placing_moves(*pair) for pair in zip(given, drawn, strict=True)]
        stay = [np.zeros_like(one) for one in moves]
        return (
            Sketches(originals, drawn, self._codes(drawn), given, moves),
            Sketches(originals, given, y.float().cpu().numpy(), given, stay),
        )

    def _codes(self, drawn: list[Polylines]) -> npt.NDArray[np.float32]:
        """Encode drawings again, including their graphs; the codes of drawings without strokes are nan."""
        pretrained = self.models.pretrained
        codes = np.full((len(drawn), pretrained.code_width), np.nan, dtype=np.float32)
        some = [number for number, strokes in enumerate(drawn) if strokes]
        codes[some] = pretrained.encode_polylines([drawn[number] for number in some], batch_size=len(drawn))
        return codes


def named(prefix: str, arrays: Arrays) -> Arrays:
    """Return the arrays with `prefix` and a slash added to their names."""
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def section(prefix: str, arrays: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arrays whose names start with `prefix` and a slash, which are removed from the names."""
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
