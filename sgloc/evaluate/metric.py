"""What a metric is: the protocol between the files in `sgloc.evaluate.metrics` and an evaluation (METHOD 10)."""

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
        pretrained: the model that is evaluated.
        classifier: of the same shards; None if there is none.
    """

    pretrained: Pretrained
    classifier: Classifier | None


@dataclass(frozen=True)
class Originals:
    """The undisturbed sketches of a batch.

    Attributes:
        labels: int64 [B], their categories, as numbers into the manifest's list.
        strokes: of each sketch, in the source's units.
        codes: float32 [B, Z].
    """

    labels: npt.NDArray[np.int64]
    strokes: list[Polylines]
    codes: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sketches:
    """The sketches of a batch that are measured: what the model drew, or what it was given to redraw.

    Attributes:
        originals: the undisturbed sketches.
        strokes: of each measured sketch, in the source's units; none where the model drew nothing.
        codes: float32 [B, Z]; nan where there is no stroke.
        given: the strokes of each sketch as the model was given it.
        moves: for each sketch float64 [S, 2], how far each given stroke lies from its place in the measured sketch.
    """

    originals: Originals
    strokes: list[Polylines]
    codes: npt.NDArray[np.float32]
    given: list[Polylines]
    moves: list[npt.NDArray[np.float64]]


class Metric(abc.ABC):
    """A metric. Each file in `sgloc.evaluate.metrics` holds one, as `METRIC`.

    Attributes:
        name: of its field in results.json; the same field of the sketches as given has "given_" before it.
        position: metrics stand in results and tables in ascending order of it.
        header: of its columns.
    """

    name: ClassVar[str]
    position: ClassVar[int]
    header: ClassVar[tuple[str, ...]]

    def applies(self, models: Models) -> bool:
        """Whether these models can be measured by it."""
        return True

    def share(self, originals: Originals) -> Arrays:
        """Arrays of the originals, one row a sketch, which `finish` gets of the whole data set."""
        return {}

    @abc.abstractmethod
    def collect(self, sketches: Sketches, models: Models) -> Arrays:
        """Arrays of a batch by name, one row a sketch; at least one array."""

    def finish(self, arrays: Arrays, shared: Mapping[str, Tensor], rows: Tensor) -> Arrays:
        """Turn arrays of some sketches into one number a sketch each.

        Args:
            arrays: of n sketches, from `collect`.
            shared: of all sketches, from `share`, on the evaluation's device.
            rows: int64 [n], the rows of `shared` that belong to these sketches' originals.
        """
        return arrays

    @abc.abstractmethod
    def summarise(self, arrays: Arrays, bootstrap: Bootstrap) -> Any:
        """The field of results.json, from the finished arrays of all sketches; JSON of estimates."""

    @abc.abstractmethod
    def cells(self, summary: Any) -> list[str]:
        """The cells of its columns, from the field of results.json."""


def cell(estimate: Estimate, factor: float = 1.0) -> str:
    """An estimate, times a factor, and its interval in brackets; "-" where there was nothing to average."""
    if estimate["value"] is None or estimate["low"] is None or estimate["high"] is None:
        return "-"
    return f"{factor * estimate['value']:.1f} ({factor * estimate['low']:.1f} to {factor * estimate['high']:.1f})"
