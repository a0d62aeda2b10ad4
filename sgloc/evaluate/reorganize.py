"""`sgloc reorganize`: the files of a person's own drawings, with every stroke where it belongs."""

from collections.abc import Sequence
from dataclasses import dataclass

from sgloc.inference.pretrained import Pretrained
from sgloc.inference.reorganize import reorganize_strokes
from sgloc.inference.sketches import Polylines
from sgloc.sketch.render import draw_gallery
from sgloc.sketch.svg.write import to_svg
from sgloc.storage import Storage

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
    found = reorganize_strokes(pretrained, [strokes for _, strokes in named], temperature=temperature, seed=seed)
    done = [Reorganized(*given, *each) for given, each in zip(named, found, strict=True)]
    rows = [
        ("given", [one.strokes for one in done]),
        ("strokes moved", [one.moved for one in done]),
        ("redrawn", [one.redrawn for one in done]),
    ]
    storage = Storage(folder)
    files = {PICTURE: draw_gallery(rows, cell_size=200 if len(done) < 8 else 108)}
    files |= {f"{one.name}-moved.svg": to_svg(one.moved).encode() for one in done}
    files |= {f"{one.name}-redrawn.svg": to_svg(one.redrawn).encode() for one in done if one.redrawn}
    storage.save(files)
    for one in done:
        if not one.redrawn:
            # An earlier one would be taken for this one's.
            storage.remove_file(f"{one.name}-redrawn.svg")
    return done
