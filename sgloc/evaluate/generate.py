"""`sgloc generate`: redrawing of a data set's sketches by a trained model (METHOD 9)."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sgloc.data.stream import fixed_batches
from sgloc.evaluate.options import GenerateOptions
from sgloc.hub.load import load_model
from sgloc.hub.split import open_split
from sgloc.inference.redraw import Drawn, gallery_rows, redraw
from sgloc.sketch.render import draw_gallery
from sgloc.sketch.svg.write import to_svg
from sgloc.storage import Storage
from sgloc.strict_json import to_json
from sgloc.terminal import tracked
from sgloc.tf32 import float32_products

_CANVAS, _PICTURE_SIZE = 255, 256
# Category names come from the data, so they must not be able to influence where a file is written.
_UNFIT_FOR_A_NAME = re.compile(r"[^\w]+")
_OWN_SVG = re.compile(r"\d{5}-[\w-]*\.svg")


@dataclass(frozen=True)
class Redrawn(Drawn):
    """A redrawn sketch with its category and its key in the data set."""

    category: str
    key_id: int


def generate(
    checkpoint: str, data: str, folder: str, options: GenerateOptions, *, device: torch.device, kind: str = ""
) -> list[Redrawn]:
    """Redraw sketches of a data set with a trained model and write the results.

    Writes redrawn.ndjson, in QuickDraw's simplified format, svg/, with one file per drawing, and gallery.png.

    Args:
        checkpoint: folder or URL of a checkpoint, a run or an exported model.
        data: folder or URL of shards.
        folder: folder or URL to write to.
        options: what to redraw, and how.
        device: device to compute on.
        kind: kind of the model, see `load_model`.

    Returns:
        The sketches, in the order of the gallery.

    Raises:
        SglocError: if the checkpoint or the shards cannot be used, or the folder cannot be written.
    """
    pretrained = load_model(checkpoint, device, kind)
    reader, prepare = open_split(pretrained, data, options.split, options.seed)
    prepare = dataclasses.replace(prepare, disturb=options.disturb)
    max_points = options.max_points or pretrained.longest_points
    found: list[Redrawn] = []
    with float32_products(device):
        chosen = reader.spread(options.count)
        batches = fixed_batches(reader, chosen, batch_size=options.batch_size)
        for packed in tracked(batches, "sketches", len(chosen)):
            sketches = prepare(packed, device)
            drawn = redraw(
                pretrained.model, sketches, pretrained.scale, max_points=max_points, temperature=options.temperature
            )
            for one, number, key_id in zip(drawn, packed.category, packed.key_id.tolist(), strict=True):
                found.append(Redrawn(**vars(one), category=reader.manifest.categories[number], key_id=key_id))
    _write(found, Storage(folder), options)
    return found


def to_simplified(polylines: Sequence[npt.NDArray[np.float64]]) -> list[list[list[int]]]:
    """Convert polylines to QuickDraw's simplified format.

    Aligns them to the top left and scales them down to 0..255 if they do not fit.
    """
    if not polylines:
        return []
    points = np.concatenate(polylines)
    low, extent = points.min(0), np.ptp(points, axis=0).max()
    factor = min(1.0, _CANVAS / extent) if extent > 0 else 1.0
    return [np.rint((line - low) * factor).astype(np.int64).T.tolist() for line in polylines]


def _write(drawn: list[Redrawn], storage: Storage, options: GenerateOptions) -> None:
    records = (
        {"word": one.category, "key_id": str(one.key_id), "drawing": to_simplified(one.redrawn)} for one in drawn
    )
    text = "".join(to_json(record, ensure_ascii=False) + "\n" for record in records)
    rows = gallery_rows(drawn, options.disturb, options.rows)
    files = {
        "redrawn.ndjson": text.encode(),
        "gallery.png": draw_gallery(rows, captions=[one.category for one in drawn]),
    }
    for index, one in enumerate(drawn):
        name = f"{index:05d}-{_UNFIT_FOR_A_NAME.sub('-', one.category)[:60]}.svg"
        files[f"svg/{name}"] = to_svg(one.redrawn, size=_PICTURE_SIZE).encode()
    for name in storage.sizes("svg"):
        # An earlier call may have written more files than this one.
        if _OWN_SVG.fullmatch(name):
            storage.remove_file(f"svg/{name}")
    storage.save(files)
