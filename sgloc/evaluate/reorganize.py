"""`sgloc reorganize`: the files of a person's own drawings, with every stroke where it belongs."""

from collections.abc import Sequence

from sgloc.inference.pretrained import Pretrained
from sgloc.inference.reorganize import reorganize_strokes
from sgloc.inference.sketches import Polylines
from sgloc.sketch.render import draw_gallery
from sgloc.sketch.svg.write import to_svg
from sgloc.storage import Storage

PICTURE = "before-after.png"


def reorganize_drawings(
    pretrained: Pretrained,
    named: Sequence[tuple[str, Polylines]],
    folder: str,
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, list[str]]:
    """Reorganize drawings, and write of each an SVG with its own strokes moved, <name>-moved.svg, and one with the
    decoder's drawing, <name>-redrawn.svg, unless the decoder drew nothing; and a picture of all, before-after.png.

    Args:
        pretrained: the model.
        named: drawings and their names, as `sgloc.sketch.reading.read_own` gives them.
        folder: folder or URL to write to.
        temperature: of METHOD 9; 0 is greedy.
        seed: of the sampling.

    Returns:
        The SVGs of each drawing, by its name.

    Raises:
        DataError: if the folder cannot be written.
    """
    names, given = zip(*named, strict=True)
    moved, redrawn = zip(*reorganize_strokes(pretrained, given, temperature=temperature, seed=seed), strict=True)
    rows = [("given", given), ("strokes moved", moved), ("redrawn", redrawn)]
    files = {PICTURE: draw_gallery(rows, cell_size=200 if len(names) < 8 else 108)}
    written, storage = {}, Storage(folder)
    for name, *sketches in zip(names, moved, redrawn, strict=True):
        svgs = dict(zip((f"{name}-moved.svg", f"{name}-redrawn.svg"), sketches, strict=True))
        files |= {file: to_svg(strokes).encode() for file, strokes in svgs.items() if strokes}
        written[name] = [file for file in svgs if file in files]
    storage.save(files)
    for name in names:
        if f"{name}-redrawn.svg" not in files:
            # An earlier one would be taken for this one's.
            storage.remove_file(f"{name}-redrawn.svg")
    return written
