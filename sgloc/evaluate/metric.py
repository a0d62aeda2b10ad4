"""The interface of the metrics in `sgloc.evaluate.metrics` (METHOD 10)."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sgloc.evaluate.bootstrap import Bootstrap, Estimate
from sgloc.inference.pretrained import Pretrained
from sgloc.inference.sketches import Polylines
from sgloc.models.sketch_a_net.load import Classifier

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Models:
    """The models of an evaluation.

    Attributes:
        pretrained: the evaluated model.
        classifier: a classifier trained on the same shards; None disables the metrics that need one.
    """

    pretrained: Pretrained
    classifier: Classifier | None


@dataclass(frozen=True)
class Originals:
    """The undisturbed sketches of a batch.

    Attributes:
        labels: int64 [B], their categories, as indices into the manifest's list.
        strokes: strokes of each sketch, in the source's units.
        codes: float32 [B, Z].
    """

    labels: npt.NDArray[np.int64]
    strokes: list[Polylines]
    codes: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sketches:
    """The measured sketches of a batch: the model's drawings, or its input.

    Attributes:
        originals: the undisturbed sketches.
        strokes: strokes of each measured sketch, in the source's units; empty if the model drew nothing.
        codes: float32 [B, Z]; nan for a sketch without strokes.
        given: strokes of each input sketch.
        moves: for each sketch, float64 [S, 2], displacement of each input stroke to its place in the measured sketch.
    """

    originals: Originals
    strokes: list[Polylines]
    codes: npt.NDArray[np.float32]
    given: list[Polylines]
    moves: list[npt.NDArray[np.float64]]


class Metric(abc.ABC):
    """A metric. Each file in `sgloc.evaluate.metrics` defines one, as `METRIC`.

    Attributes:
        name: name of its field in results.json; the field for the sketches as given has the prefix "given_".
        position: sort key; results and tables list metrics in ascending order.
        header: headings of its table columns.
    """

    name: ClassVar[str]
    position: ClassVar[int]
    header: ClassVar[tuple[str, ...]]

    def applies(self, models: Models) -> bool:
        """Return whether the metric can be computed with these models."""
        return True

    def share(self, originals: Originals) -> Arrays:
        """Return arrays of the originals, one row per sketch; `finish` receives them for the whole data set."""
        return {}

    @abc.abstractmethod
    def collect(self, sketches: Sketches, models: Models) -> Arrays:
        """Return the arrays of a batch by name, at least one, with one row per sketch."""

    def finish(self, arrays: Arrays, shared: Mapping[str, Tensor], rows: Tensor) -> Arrays:
        """Reduce the arrays of n sketches to one number per sketch each.

        Args:
            arrays: arrays of n sketches, from `collect`.
            shared: arrays of all sketches, from `share`, on the evaluation's device.
            rows: int64 [n], the rows of `shared` that hold these sketches' originals.
        """
        return arrays

    @abc.abstractmethod
    def summarise(self, arrays: Arrays, bootstrap: Bootstrap) -> Any:
        """Compute the metric's field of results.json, JSON of estimates, from the finished arrays of all sketches."""

    @abc.abstractmethod
    def cells(self, summary: Any) -> list[str]:
        """Format the metric's table cells from its field of results.json."""


def cell(estimate: Estimate, factor: float = 1.0) -> str:
    """Format an estimate, times a factor, with its interval in brackets; "-" if there was nothing to average."""
    if estimate["value"] is None or estimate["low"] is None or estimate["high"] is None:
        return "-"
    return f"{factor * estimate['value']:.1f} ({factor * estimate['low']:.1f} to {factor * estimate['high']:.1f})"
