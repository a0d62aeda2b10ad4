"""What a report shows of a model: how it redraws, what it finds again, where its codes are, what lies between two."""

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

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

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retrieval:
    """A redrawn sketch, its original, and the originals whose codes are nearest to its own.

    Attributes:
        query: the redrawn sketch.
        own: its original.
        found: the nearest originals, nearest first.
        hit: the place among them at which its own stands; None if it is not among them.
    """

    query: Polylines
    own: Polylines
    found: list[Polylines]
    hit: int | None


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
    return Shown(
        disturb=disturb,
        redrawings=drawn,
        captions=[names[number] for number in packed.category],
        retrievals=_retrieve(pretrained, drawn, some, gallery, originals),
        sketches=originals,
        labels=labels,
        map=principal_map(gallery),
        path=_path(pretrained, gallery, originals, labels, options.between),
        names=names,
    )


def _retrieve(
    pretrained: Pretrained,
    drawn: list[Drawn],
    numbers: npt.NDArray[np.int64],
    gallery: npt.NDArray[np.float32],
    originals: list[Polylines],
) -> list[Retrieval]:
    found = []
    for one, number in zip(drawn, numbers.tolist(), strict=True):
        if not one.redrawn:
            continue
        (code,) = pretrained.encode_polylines([one.redrawn])
        order = np.argsort(np.square(gallery - code).sum(1), kind="stable")[:NUM_NEIGHBOURS].tolist()
        hit = order.index(number) if number in order else None
        found.append(Retrieval(one.redrawn, originals[number], [originals[other] for other in order], hit))
    return found


def _path(
    pretrained: Pretrained,
    gallery: npt.NDArray[np.float32],
    originals: list[Polylines],
    labels: list[int],
    num_between: int,
) -> list[Polylines]:
    """From the first sketch to one of another category, if there is one."""
    last = next((number for number in range(len(labels) - 1, 0, -1) if labels[number] != labels[0]), len(labels) - 1)
    shares = np.linspace(0, 1, num_between)[:, None]
    codes = (1 - shares) * gallery[0] + shares * gallery[last]
    rows = pretrained.draw_codes(codes)
    return [originals[0], *(polylines_of_rows(one, pretrained.scale) for one in rows), originals[last]]
