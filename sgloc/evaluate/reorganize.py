"""`sgloc reorganize`: reorganization of a user's own drawings, written as SVG files."""

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
    """Reorganize drawings and write the results to a folder.

    For each drawing, writes <name>-moved.svg, with its own strokes moved, and <name>-redrawn.svg, the decoder's
    drawing, unless that is empty. before-after.png shows all drawings.

    Args:
        pretrained: the model.
        named: names and drawings, as returned by `sgloc.sketch.reading.read_own`.
        folder: folder or URL to write to.
        temperature: sampling temperature (METHOD 9); 0 is greedy.
        seed: seed of the sampling.

    Returns:
        The names of each drawing's SVG files, by its name.

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
            # A file left by an earlier call would be mistaken for this drawing's result.
            storage.remove_file(f"{name}-redrawn.svg")
    return written
