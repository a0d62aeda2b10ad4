"""What a report shows of a model: how it redraws, what it finds again, where its codes are, what lies between two."""

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
        found: the nearest originals, nearest first, and whether each is its own.
    """

    query: Polylines
    own: Polylines
    found: list[tuple[Polylines, bool]]


@dataclass(frozen=True)
class Shown:
    """What is shown of a model.

    Attributes:
        disturb: by which strokes were moved.
        redrawings: of sketches spread over the test split.
        captions: their categories.
        retrievals: likewise.
        sketches: those on the map, with their categories.
        labels: int64 [n].
        map: where their codes are.
        path: sketches on the way from one code to another, the ends' originals around them.
        names: of all categories.
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
    """Look at a model through test sketches.

    Args:
        pretrained: the model.
        split: test sketches.
        disturb: r of METHOD 3, for what is reorganized.
        options: how many sketches to look at.

    Raises:
        DataError: if the shards cannot be read.
    """
    reader, clean = split
    chosen, names = reader.spread(options.count), reader.manifest.categories
    model, scale, device = pretrained.model, pretrained.scale, pretrained.device
    logger.info("%d test drawings are encoded", len(chosen))
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
    logger.info("%d of them are redrawn", num_examples)
    (packed,) = fixed_batches(reader, chosen[some], batch_size=num_examples)
    moved = dataclasses.replace(clean, disturb=disturb)(packed, device)
    drawn = redraw(model, moved, scale, max_points=pretrained.longest_points)
    # To a sketch of another category, if there is one.
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
    """Of each sketch in which something is drawn, the originals that are nearest; `numbers` are those of their own."""
    for one, number in zip(drawn, numbers.tolist(), strict=True):
        if one.redrawn:
            (code,) = pretrained.encode_polylines([one.redrawn])
            order = np.argsort(np.square(gallery - code).sum(1), kind="stable")[:NUM_NEIGHBOURS].tolist()
            found = [(originals[other], other == number) for other in order]
            yield Retrieval(one.redrawn, originals[number], found)


def _between(pretrained: Pretrained, first: Codes, last: Codes, count: int) -> list[Polylines]:
    """Sketches of codes on the straight line from one to another, its ends among them."""
    shares = np.linspace(0, 1, count)[:, None]
    drawn = pretrained.draw_codes((1 - shares) * first + shares * last)
    return [polylines_of_rows(rows, pretrained.scale) for rows in drawn]
