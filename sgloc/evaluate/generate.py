"""`sgloc generate`: sketches in, the model's own drawings of them out (METHOD 9)."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import fsspec.core
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgloc.data.batch import PackedBatch, Preparation
from sgloc.data.manifest import load_manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.errors import ConfigError, DataError
from sgloc.hub.load import load_model
from sgloc.inference.sampling import draw
from sgloc.inference.sketches import Polylines, polylines, polylines_of_rows
from sgloc.inference.stroke_matching import placed
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.sketch.ragged import SketchBatch
from sgloc.sketch.render import GalleryRow, write_gallery, write_svg
from sgloc.strict_json import to_json
from sgloc.tf32 import float32_products

Row = Literal["original", "disturbed", "put_back", "redrawn"]
# What is like another in synthesis, where no stroke is moved.
_OF_REORGANIZATION = {"disturbed", "put_back"}

_CANVAS = 255
# From where to where an option can be; the upper ends only keep numbers finite and memory in bounds.
_RANGES = {
    "count": (1, 10**9),
    "batch_size": (1, 10**6),
    "max_points": (0, 10**5),
    "temperature": (0, 10**6),
    "disturb": (0, 10**6),
}
# A category is whatever the data says, and must not decide where a file goes.
_UNFIT_FOR_A_NAME = re.compile(r"[^\w]+")
_OWN_SVG = re.compile(r"\d{5}-[\w-]*\.svg")


@dataclass(frozen=True)
class GenerateOptions:
    """What to redraw, and how.

    Attributes:
        split: of the shards.
        count: drawings, spread evenly over the split.
        disturb: r of METHOD 3; 0 is synthesis.
        temperature: of METHOD 9; 0 is greedy.
        max_points: most points of a drawing; 0: those of the longest drawing of the data set that the model was trained
            on.
        seed: of the disturbance and of the sampling.
        batch_size: drawings decoded together.
        rows: rows of the gallery; put_back: the sketch's own strokes, each moved to where the redrawing has it.
    """

    split: str = "test"
    count: int = 64
    disturb: float = 0.0
    temperature: float = 0.0
    max_points: int = 0
    seed: int = 0
    batch_size: int = 256
    rows: tuple[str, ...] = get_args(Row)

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be from {least} to {most:,}, not {getattr(self, name)}")
        unknown = set(self.rows) - set(get_args(Row))
        if unknown or not self.rows:
            raise ConfigError(
                f"rows must be some of {', '.join(get_args(Row))}, not {', '.join(sorted(unknown)) or 'none'}"
            )
        if self.disturb == 0 and not set(self.rows) - _OF_REORGANIZATION:
            raise ConfigError(
                f"rows must be more than {', '.join(self.rows)}, for in synthesis no stroke is moved; "
                "add original or redrawn"
            )


@dataclass(frozen=True)
class Drawn:
    """One sketch and what became of it; polylines are float [n, 2] in the source's units."""

    category: str
    key_id: int
    original: Polylines
    disturbed: Polylines
    redrawn: Polylines

    @property
    def put_back(self) -> Polylines:
        """The disturbed strokes, each moved rigidly to where the redrawing has it."""
        return placed(self.disturbed, self.redrawn)


def generate(
    checkpoint: str,
    data: str,
    folder: str,
    options: GenerateOptions,
    *,
    device: torch.device,
    say: Callable[[str], None],
) -> list[Drawn]:
    """Redraw sketches of a data set with a trained model, and write what came out.

    Writes into the folder (or URL): redrawn.ndjson, in QuickDraw's simplified form; svg/, one file a drawing;
    gallery.png.

    Args:
        checkpoint: of the model; or a run's folder; or an exported model's.
        data: folder or URL of shards.
        folder: where to write.
        options: what to redraw, and how.
        device: to compute on.
        say: is told of checkpoints that are skipped.

    Returns:
        The sketches, in the order in which the gallery shows them.

    Raises:
        SglocError: if the checkpoint or the shards cannot be used, or the folder cannot be written.
    """
    pretrained = load_model(checkpoint, device, say)
    model = pretrained.model
    manifest = load_manifest(data)
    reader = ShardReader(data, manifest, options.split)
    count = min(options.count, reader.num_sketches)
    chosen = np.arange(count, dtype=np.int64) * reader.num_sketches // count
    prepare = Preparation(
        scale=pretrained.scale,
        seed=options.seed,
        disturb=options.disturb,
        max_node_points=model.config.max_node_points,
        from_first_point=starts_at_first_point(manifest, pretrained.origin, data),
    )
    drawn: list[Drawn] = []
    max_points, temperature = options.max_points or pretrained.longest_points, options.temperature
    with float32_products(device):
        for packed in fixed_batches(reader, chosen, batch_size=options.batch_size):
            drawn += redraw(
                model, packed, prepare, manifest.categories, device, max_points=max_points, temperature=temperature
            )
    try:
        _write(drawn, folder, options)
    except OSError as error:
        raise DataError(f"cannot write to {folder} ({error}); give an --out that can be written") from error
    return drawn


@torch.no_grad()
def redraw(
    model: SketchGloc,
    packed: PackedBatch,
    prepare: Preparation,
    categories: list[str],
    device: torch.device,
    *,
    max_points: int,
    temperature: float,
) -> list[Drawn]:
    """Redraw a batch of sketches.

    Args:
        model: in evaluation mode, on the device.
        packed: the sketches.
        prepare: how they become input.
        categories: the manifest's list.
        device: to compute on.
        max_points: most points of a drawing.
        temperature: of METHOD 9; 0 is greedy.
    """
    sketches = prepare(packed, device)
    y = model.encode(sketches).y
    rows = draw(model.decoder, y, sketches.random_key, max_points=max_points, temperature=temperature)
    return _describe(packed, sketches, rows, categories, prepare.scale)


def _describe(
    packed: PackedBatch, sketches: SketchBatch, rows: list[Tensor], categories: list[str], scale: float
) -> list[Drawn]:
    offsets = sketches.sketch_point_offsets.tolist()
    points, targets, pen_lift = (tensor.cpu() for tensor in (sketches.points, sketches.targets, sketches.pen_lift))
    result = []
    for index, (start, stop) in enumerate(itertools.pairwise(offsets)):
        here = slice(start, stop)
        result.append(
            Drawn(
                category=categories[int(packed.category[index])],
                key_id=int(packed.key_id[index]),
                original=polylines(targets[here], pen_lift[here], scale),
                disturbed=polylines(points[here], pen_lift[here], scale),
                redrawn=polylines_of_rows(rows[index], scale),
            )
        )
    return result


def to_simplified(polylines: Sequence[npt.NDArray[np.float64]]) -> list[list[list[int]]]:
    """Polylines as QuickDraw's simplified form has them: aligned to the top left and, only if they do not fit, scaled
    down to 0..255."""
    if not polylines:
        return []
    points = np.concatenate(polylines)
    low, extent = points.min(0), np.ptp(points, axis=0).max()
    factor = min(1.0, _CANVAS / extent) if extent > 0 else 1.0
    return [np.rint((line - low) * factor).astype(np.int64).T.tolist() for line in polylines]


def _write(drawn: list[Drawn], folder: str, options: GenerateOptions) -> None:
    file_system, root = fsspec.core.url_to_fs(folder)
    file_system.makedirs(f"{root}/svg", exist_ok=True)
    for path in file_system.ls(f"{root}/svg", detail=False):
        # Of an earlier call, which may have drawn more.
        if _OWN_SVG.fullmatch(path.rsplit("/", 1)[-1]):
            file_system.rm(path)
    records = (
        {"word": one.category, "key_id": str(one.key_id), "drawing": to_simplified(one.redrawn)} for one in drawn
    )
    text = "".join(to_json(record, ensure_ascii=False) + "\n" for record in records)
    file_system.pipe_file(f"{root}/redrawn.ndjson", text.encode())
    base = folder.rstrip("/")
    for index, one in enumerate(drawn):
        write_svg(one.redrawn, f"{base}/svg/{index:05d}-{_UNFIT_FOR_A_NAME.sub('-', one.category)[:60]}.svg")
    write_drawn(drawn, f"{base}/gallery.png", options.disturb, options.rows)


def write_drawn(drawn: Sequence[Drawn], path: str, disturb: float, rows: Sequence[str] = get_args(Row)) -> None:
    """Write a gallery of sketches and what became of them, `rows` as in `GenerateOptions`, to a path or URL."""
    shown = [row for row in rows if row not in _OF_REORGANIZATION or disturb > 0]
    gallery = [GalleryRow(row.replace("_", " "), [getattr(one, row) for one in drawn]) for row in shown]
    write_gallery(gallery, path, captions=[one.category for one in drawn])
