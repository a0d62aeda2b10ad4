"""The sections of a report: redrawings, retrieval, the map of codes, interpolation between two drawings."""

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sgloc.data.block import IntArray
from sgloc.data.stream import fixed_batches
from sgloc.hub.split import Split
from sgloc.inference.pretrained import Pretrained
from sgloc.inference.redraw import Drawn, redraw
from sgloc.inference.sketches import Polylines, polylines_of_rows, strokes_of
from sgloc.report.latent import Map, principal_map
from sgloc.report.options import ReportOptions
from sgloc.terminal import tracked

NUM_NEIGHBOURS = 5
_BATCH_SIZE = 256

Codes = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retrieval:
    """A redrawn sketch, its original, and the originals whose codes are nearest to its own.

    Attributes:
        query: the redrawn sketch.
        own: its original.
        found: the nearest originals, nearest first, each with whether it is the sketch's own.
    """

    query: Polylines
    own: Polylines
    found: list[tuple[Polylines, bool]]


@dataclass(frozen=True)
class Shown:
    """Content of a report.

    Attributes:
        disturb: how far strokes were moved for the redrawings (r of METHOD 3).
        redrawings: redrawings of sketches spread evenly over the test split.
        captions: categories of the redrawings.
        retrievals: retrieval results of the redrawings.
        sketches: the n sketches on the map.
        labels: their n category numbers.
        map: the projection of their codes.
        path: sketches interpolated between two codes, preceded and followed by the originals of the two.
        names: names of all categories.
    """

    disturb: float
    redrawings: list[Drawn]
    captions: list[str]
    retrievals: list[Retrieval]
    sketches: list[Polylines]
    labels: list[int]
    map: Map
    path: list[Polylines]
    names: list[str]


def look(pretrained: Pretrained, split: Split, disturb: float, options: ReportOptions) -> Shown:
    """Apply a model to test sketches and collect the content of a report.

    Args:
        pretrained: the model.
        split: the test split.
        disturb: how far to move strokes before redrawing (r of METHOD 3).
        options: the numbers of sketches to show.

    Raises:
        DataError: if the shards cannot be read.
    """
    reader, clean = split
    chosen, names = reader.spread(options.count), reader.manifest.categories
    model, scale, device = pretrained.model, pretrained.scale, pretrained.device
    logger.info("encoding %d test drawings", len(chosen))
    codes, originals, labels = [], [], []
    for packed in tracked(fixed_batches(reader, chosen, batch_size=_BATCH_SIZE), "sketches", len(chosen)):
        batch = clean(packed, device)
        with torch.no_grad():
            codes.append(model.encode(batch).y.float().cpu().numpy())
        originals += strokes_of(batch, batch.points, scale)
        labels += packed.category.tolist()
    gallery = np.concatenate(codes)
    num_examples = min(options.examples, len(chosen))
    some = np.arange(num_examples, dtype=np.int64) * len(chosen) // num_examples
    logger.info("redrawing %d of them", num_examples)
    (packed,) = fixed_batches(reader, chosen[some], batch_size=num_examples)
    moved = dataclasses.replace(clean, disturb=disturb)(packed, device)
    drawn = redraw(model, moved, scale, max_points=pretrained.longest_points)
    # Interpolate to a sketch of another category, if there is one.
    last = next((number for number in reversed(range(len(labels))) if labels[number] != labels[0]), len(labels) - 1)
    between = _between(pretrained, gallery[0], gallery[last], options.between)
    return Shown(
        disturb=disturb,
        redrawings=drawn,
        captions=[names[number] for number in packed.category],
        retrievals=list(_retrieve(pretrained, drawn, some, gallery, originals)),
        sketches=originals,
        labels=labels,
        map=principal_map(gallery),
        path=[originals[0], *between, originals[last]],
        names=names,
    )


def _retrieve(
    pretrained: Pretrained, drawn: list[Drawn], numbers: IntArray, gallery: Codes, originals: list[Polylines]
) -> Iterator[Retrieval]:
    """Yield the nearest originals of each non-empty redrawing.

    Args:
        pretrained: the model.
        drawn: the redrawings.
        numbers: int64, the index of each redrawing's own original.
        gallery: float32 [n, Z], codes of the originals.
        originals: the n originals.
    """
    for one, number in zip(drawn, numbers.tolist(), strict=True):
        if one.redrawn:
            (code,) = pretrained.encode_polylines([one.redrawn])
            order = np.argsort(np.square(gallery - code).sum(1), kind="stable")[:NUM_NEIGHBOURS].tolist()
            found = [(originals[other], other == number) for other in order]
            yield Retrieval(one.redrawn, originals[number], found)


def _between(pretrained: Pretrained, first: Codes, last: Codes, count: int) -> list[Polylines]:
    """Draw sketches from `count` codes on the straight line between two codes, including both ends."""
    shares = np.linspace(0, 1, count)[:, None]
    drawn = pretrained.draw_codes((1 - shares) * first + shares * last)
    return [polylines_of_rows(rows, pretrained.scale) for rows in drawn]
