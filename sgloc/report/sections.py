"""What a report shows of a model: how it redraws, what it finds again, where its codes are, what lies between two."""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sgloc.data.batch import Preparation
from sgloc.data.manifest import Manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.evaluate.generate import Drawn, redraw
from sgloc.hub.pretrained import Pretrained
from sgloc.inference.sketches import Polylines, polylines, polylines_of_rows
from sgloc.report.latent import Map, principal_map
from sgloc.sketch.ragged import SketchBatch

NUM_NEIGHBOURS = 5
_BATCH_SIZE = 256


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
        retrievals: likewise.
        sketches: those on the map, with their categories.
        labels: int64 [n].
        map: where their codes are.
        path: sketches on the way from one code to another, the ends' originals around them.
        names: of all categories.
    """

    disturb: float
    redrawings: list[Drawn]
    retrievals: list[Retrieval]
    sketches: list[Polylines]
    labels: list[int]
    map: Map
    path: list[Polylines]
    names: list[str]


def look(
    pretrained: Pretrained,
    data: str,
    manifest: Manifest,
    *,
    disturb: float,
    count: int,
    num_examples: int,
    num_between: int,
    seed: int,
    say: Callable[[str], None],
) -> Shown:
    """Look at a model through test sketches.

    Args:
        pretrained: the model.
        data: folder or URL of shards.
        manifest: theirs.
        disturb: r of METHOD 3, for what is reorganized.
        count: most sketches on the map and in the gallery of retrieval, spread evenly over the test split.
        num_examples: redrawings, and retrievals.
        num_between: sketches drawn on the way between two.
        seed: of the disturbance.
        say: is told what is done.

    Raises:
        DataError: if the shards cannot be read.
    """
    reader = ShardReader(data, manifest, "test")
    count = min(count, reader.num_sketches)
    chosen = np.arange(count, dtype=np.int64) * reader.num_sketches // count
    say(f"{count} test drawings are encoded")
    config = pretrained.model.config
    from_first_point = starts_at_first_point(manifest, pretrained.origin, data)
    clean = Preparation(
        pretrained.scale, seed, max_node_points=config.max_node_points, from_first_point=from_first_point
    )
    codes, originals, labels = [], [], []
    for packed in fixed_batches(reader, chosen, batch_size=_BATCH_SIZE):
        batch = clean(packed, pretrained.device)
        with torch.no_grad():
            codes.append(pretrained.model.encode(batch).y.float().cpu().numpy())
        originals += _strokes(batch, pretrained.scale)
        labels += packed.category.tolist()
    gallery = np.concatenate(codes)
    some = np.arange(min(num_examples, count), dtype=np.int64) * count // min(num_examples, count)
    say(f"{len(some)} of them are redrawn")
    (packed,) = fixed_batches(reader, chosen[some], batch_size=len(some))
    moving = dataclasses.replace(clean, disturb=disturb)
    most = pretrained.longest_points
    drawn = redraw(
        pretrained.model, packed, moving, manifest.categories, pretrained.device, max_points=most, temperature=0.0
    )
    return Shown(
        disturb=disturb,
        redrawings=drawn,
        retrievals=_retrieve(pretrained, drawn, some, gallery, originals),
        sketches=originals,
        labels=labels,
        map=principal_map(gallery),
        path=_path(pretrained, gallery, originals, labels, num_between),
        names=manifest.categories,
    )


def _strokes(batch: SketchBatch, scale: float) -> list[Polylines]:
    """The sketches of a batch, in source units."""
    points, pen_lift = batch.points.cpu(), batch.pen_lift.cpu()
    return [
        polylines(points[start:stop], pen_lift[start:stop], scale)
        for start, stop in itertools.pairwise(batch.sketch_point_offsets.tolist())
    ]


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
    rows = pretrained.draw_codes(codes, 0.0, 0, 0, _BATCH_SIZE)
    return [originals[0], *(polylines_of_rows(one, pretrained.scale) for one in rows), originals[last]]
