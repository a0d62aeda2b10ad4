"""A batch of test sketches through the model, and what is kept of it for Rec, Ret and distances (METHOD 10)."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sgloc.data.batch import PackedBatch, Preparation
from sgloc.evaluate.tasks import EvaluationTask
from sgloc.hub.pretrained import Pretrained
from sgloc.inference.sampling import draw
from sgloc.inference.sketches import Polylines, batch_of, polylines, polylines_of_rows
from sgloc.inference.stroke_matching import placing_moves
from sgloc.models.sketch_a_net.load import Classifier
from sgloc.sketch.ragged import SketchBatch

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Measuring:
    """How a batch is measured.

    Attributes:
        pretrained: the model.
        classifier: for Rec; None: Rec is not measured.
        seed: of the disturbance and of the sampling.
        temperature: of METHOD 9; 0 is greedy.
        max_points: most points of a drawing.
        from_first_point: whether the origin of the shards' sketches is their first point (see `Preparation`).
    """

    pretrained: Pretrained
    classifier: Classifier | None
    seed: int
    temperature: float
    max_points: int
    from_first_point: bool = False

    @torch.no_grad()
    def measure(self, packed: PackedBatch, tasks: tuple[EvaluationTask, ...]) -> Arrays:
        """What is kept of a batch, in arrays by name, one row a sketch.

        gallery, the code of the clean original, float32 [B, Z]; label, its category, int64; and of each task, by its
        name and a dot: query, the code of what was drawn, nan where nothing was; category, what the classifier takes it
        for, -1 where there is none; given and given_category, the same of the sketch as the model was given it; moved
        and left, the distances of its strokes from their right places, float64, summed in percent of the sketch's size,
        after they were moved to where the drawing has them and where they lie; and strokes, how many those are: all but
        the first.
        """
        clean = self._prepare(packed, 0.0)
        gallery = self.pretrained.model.encode(clean).y
        kept: Arrays = {"gallery": gallery.float().cpu().numpy(), "label": packed.category.astype(np.int64)}
        for task in tasks:
            given = self._prepare(packed, task.disturb) if task.disturb else clean
            y = self.pretrained.model.encode(given).y
            rows = draw(
                self.pretrained.model.decoder,
                y,
                given.random_key,
                max_points=self.max_points,
                temperature=self.temperature,
            )
            # A point that is not finite cannot be drawn; such a drawing counts as none.
            drawn = [
                polylines_of_rows(one, self.pretrained.scale) if bool(torch.isfinite(one).all()) else [] for one in rows
            ]
            shown, right = self._strokes(given), self._strokes(clean)
            moved, left, strokes = _distances(shown, right, drawn)
            found: Arrays = {
                "query": self._codes(drawn),
                "given": y.float().cpu().numpy(),
                "moved": moved,
                "left": left,
                "strokes": strokes,
            }
            if self.classifier is not None:
                found["category"] = self.classifier.classify(drawn)
                found["given_category"] = self.classifier.classify(shown)
            kept |= {f"{task.name}.{name}": array for name, array in found.items()}
        return kept

    def _prepare(self, packed: PackedBatch, disturb: float) -> SketchBatch:
        config = self.pretrained.model.config
        prepare = Preparation(
            self.pretrained.scale,
            self.seed,
            disturb,
            max_node_points=config.max_node_points,
            from_first_point=self.from_first_point,
        )
        return prepare(packed, self.pretrained.device)

    def _strokes(self, sketches: SketchBatch) -> list[Polylines]:
        points, lift = sketches.points.cpu(), sketches.pen_lift.cpu()
        bounds = itertools.pairwise(sketches.sketch_point_offsets.tolist())
        return [polylines(points[start:stop], lift[start:stop], self.pretrained.scale) for start, stop in bounds]

    def _codes(self, drawn: list[Polylines]) -> npt.NDArray[np.float32]:
        """Codes of drawings, encoded again, graphs and all; nan for those without a stroke."""
        config = self.pretrained.model.config
        codes = np.full((len(drawn), config.latent_size), np.nan, dtype=np.float32)
        some = [number for number, strokes in enumerate(drawn) if strokes]
        if some:
            keys = torch.zeros(len(some), dtype=torch.int64)
            sketches = [drawn[number] for number in some]
            batch = batch_of(sketches, self.pretrained.scale, config.max_node_points, keys, self.pretrained.device)
            codes[some] = self.pretrained.model.encode(batch).y.float().cpu().numpy()
        return codes


def _distances(
    shown: list[Polylines], right: list[Polylines], drawn: list[Polylines]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """See moved, left and strokes of `Measuring.measure`; each [B]."""
    sums = np.zeros((2, len(shown)))
    for number, (strokes, clean, redrawn) in enumerate(zip(shown, right, drawn, strict=True)):
        points = np.concatenate([*clean, np.zeros((1, 2))])
        size = max(float(np.ptp(points, axis=0).max()), np.finfo(np.float64).tiny)
        # Strokes are moved rigidly, so that any point tells how far.
        away = np.array([stroke[0] - own[0] for stroke, own in zip(strokes, clean, strict=True)])[1:]
        moves = placing_moves(strokes, redrawn)[1:]
        for row, vectors in enumerate((away + moves, away)):
            sums[row, number] = 100 * np.hypot(vectors[:, 0], vectors[:, 1]).sum() / size
    return sums[0], sums[1], np.array([len(strokes) - 1 for strokes in shown])
