"""`sgloc reorganize`: a user's own drawing, with every stroke where it belongs."""

from collections.abc import Sequence
from dataclasses import dataclass

import fsspec.core
import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError
from sgloc.hub.pretrained import Pretrained
from sgloc.inference.sketches import Polylines, polylines_of_rows
from sgloc.inference.stroke_matching import placed
from sgloc.sketch.render import GalleryRow, write_gallery
from sgloc.sketch.simplify import CANVAS_SIDE, simplify
from sgloc.sketch.svg.write import svg_in_place

PICTURE = "before-after.png"


@dataclass(frozen=True)
class Reorganized:
    """A drawing before and after; strokes are float64 [n, 2] in its own coordinates.

    Attributes:
        name: of the drawing.
        strokes: as they were given.
        moved: the same, each moved rigidly to where it belongs.
        redrawn: the decoder's own drawing; may be none.
    """

    name: str
    strokes: Polylines
    moved: Polylines
    redrawn: Polylines


def reorganize_strokes(
    pretrained: Pretrained, drawings: Sequence[Polylines], *, temperature: float = 0.0, seed: int = 0
) -> list[tuple[Polylines, Polylines]]:
    """Where the strokes of drawings on any canvas belong.

    A drawing is brought onto QuickDraw's canvas and simplified as QuickDraw does, for that is what the model knows
    (METHOD 1), and its origin to where the model has it; what comes out is brought back.

    Args:
        pretrained: the model, trained on simplified QuickDraw drawings or the like.
        drawings: each at least one stroke, [n, 2] of absolute (x, y).
        temperature: of METHOD 9; 0 is greedy.
        seed: of the sampling.

    Returns:
        Of each drawing its own strokes moved rigidly, and the decoder's drawing of it.
    """
    given: list[Polylines] = [[line.astype(np.float64) for line in simplify(drawing)] for drawing in drawings]
    starts_first = pretrained.origin == "first_point"
    origins = [strokes[0][0] if starts_first else np.zeros(2) for strokes in given]
    shown = [[line - origin for line in strokes] for strokes, origin in zip(given, origins, strict=True)]
    codes = pretrained.encode_polylines(shown)
    drawn = pretrained.draw_codes(codes, temperature, 0, seed, 256)
    result = []
    for drawing, origin, rows in zip(drawings, origins, drawn, strict=True):
        corner, unit = _canvas(drawing)
        redrawn = [(line + origin) * unit + corner for line in polylines_of_rows(rows, pretrained.scale)]
        result.append((placed(drawing, redrawn), redrawn))
    return result


def _canvas(strokes: Polylines) -> tuple[npt.NDArray[np.float64], float]:
    """A drawing's top left corner, [2], and what a pixel of QuickDraw's canvas is there."""
    points = np.concatenate(strokes)
    corner: npt.NDArray[np.float64] = points.min(0)
    return corner, float((points.max(0) - corner).max()) / CANVAS_SIDE


def reorganize_drawings(
    pretrained: Pretrained,
    named: Sequence[tuple[str, Polylines]],
    folder: str,
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Reorganized]:
    """Reorganize drawings, and write of each an SVG with its own strokes moved, <name>-moved.svg, and one with the
    decoder's drawing, <name>-redrawn.svg, unless the decoder drew nothing; and a picture of all, before-after.png.

    Args:
        pretrained: the model.
        named: drawings and their names, as `sgloc.sketch.reading.read_own` gives them.
        folder: folder or URL to write to.
        temperature: of METHOD 9; 0 is greedy.
        seed: of the sampling.

    Raises:
        DataError: if the folder cannot be written.
    """
    names, drawings = [name for name, _ in named], [strokes for _, strokes in named]
    found = reorganize_strokes(pretrained, drawings, temperature=temperature, seed=seed)
    done = [Reorganized(*each) for each in zip(names, drawings, *zip(*found, strict=True), strict=True)]
    try:
        _write(done, folder)
    except OSError as error:
        raise DataError(f"cannot write to {folder} ({error}); give an --out that can be written") from error
    return done


def _write(done: list[Reorganized], folder: str) -> None:
    file_system, root = fsspec.core.url_to_fs(folder)
    file_system.makedirs(root, exist_ok=True)
    for one in done:
        file_system.pipe_file(f"{root}/{one.name}-moved.svg", svg_in_place(one.moved).encode())
        redrawn = f"{root}/{one.name}-redrawn.svg"
        if one.redrawn:
            file_system.pipe_file(redrawn, svg_in_place(one.redrawn).encode())
        elif file_system.exists(redrawn):
            # An earlier one would be taken for this one's.
            file_system.rm_file(redrawn)
    rows = [
        GalleryRow("given", [one.strokes for one in done]),
        GalleryRow("strokes moved", [one.moved for one in done]),
        GalleryRow("redrawn", [one.redrawn for one in done]),
    ]
    write_gallery(rows, f"{folder.rstrip('/')}/{PICTURE}", cell_size=200 if len(done) < 8 else 108)
