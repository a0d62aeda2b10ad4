"""What is done with a trained model: `sgloc generate`, `evaluate`, `reorganize` and `report`."""

import logging
import os

from sgloc.cli.shared import DeviceName, chosen_device
from sgloc.evaluate.options import EvaluateOptions, GenerateOptions, SamplingOptions
from sgloc.program import show
from sgloc.report.options import ReportOptions

logger = logging.getLogger(__name__)


def generate(
    checkpoint: str, data: str, out: str, options: GenerateOptions, kind: str = "", device: DeviceName = "auto"
) -> None:
    """Redraw sketches with a trained model: simplified ndjson, an SVG each, and a gallery.

    Args:
        checkpoint: Folder or URL of a checkpoint; of a run, of which the best is taken; or of an exported model.
        data: Folder or URL of shards.
        out: Folder or URL to write to.
        options: What to redraw, and how.
        kind: Name of the model, where neither this program nor an installed package has it: package:Recipe, whose code
            is imported.
        device: Where to compute; auto takes CUDA when there is one.
    """
    from sgloc.evaluate.generate import generate as redraw

    drawn = redraw(checkpoint, data, out, options, device=chosen_device(device), kind=kind)
    out = out.rstrip("/")
    show(f"{len(drawn)} sketches redrawn: {out}/gallery.png, {out}/redrawn.ndjson, {out}/svg/")


def evaluate(
    checkpoint: str,
    data: str,
    out: str,
    options: EvaluateOptions,
    kind: str = "",
    device: DeviceName = "auto",
    classifier: str = "",
) -> None:
    """Measure a trained model on all test drawings: Rec, Ret, and how far strokes are from their right places.

    In one process, or in any number under torchrun, with the same result; on a CPU each uses one core. An evaluation
    that was stopped goes on when it is started again.

    Args:
        checkpoint: Folder or URL of a checkpoint; of a run, of which the best is taken; or of an exported model.
        data: Folder or URL of shards.
        out: Folder or URL to write to.
        options: What to measure, and how.
        kind: Name of the model, where neither this program nor an installed package has it: package:Recipe, whose code
            is imported.
        device: Where to compute; auto takes CUDA when there is one.
        classifier: Run of `sgloc train-classifier` on the same shards; without it Rec is not measured.
    """
    from sgloc import dist
    from sgloc.evaluate.run import TABLES
    from sgloc.evaluate.run import evaluate as measure
    from sgloc.evaluate.tables import overall

    placement = dist.resolve_placement(os.environ)
    with dist.process_group(placement, chosen_device(device, placement)) as ranks:
        results = measure(checkpoint, data, classifier, out, options, ranks, kind=kind)
    if results is not None:
        show(overall(results))
        show(f"\nby category: {out.rstrip('/')}/{TABLES}")


def reorganize(
    drawing: str, checkpoint: str, out: str, options: SamplingOptions, kind: str = "", device: DeviceName = "auto"
) -> None:
    """Put the strokes of your own drawing where they belong: SVG in, SVG out, and a picture of before and after.

    The drawing's own strokes are moved, and the model redraws it. The first stroke stays where it is.

    Args:
        drawing: Path or URL of the drawing: an .svg or .svgz file; an .ndjson file with a drawing a line, as QuickDraw
            has them; or a .json file, a list of strokes, each a list of points [x, y].
        checkpoint: Folder or URL of a checkpoint; of a run, of which the best is taken; or of an exported model.
        out: Folder or URL to write to.
        options: How the pen is sampled.
        kind: Name of the model, where neither this program nor an installed package has it: package:Recipe, whose code
            is imported.
        device: Where to compute; auto takes CUDA when there is one.
    """
    from sgloc.sketch.reading import read_own

    # A drawing that cannot be read is refused before the model, and torch with it, is loaded.
    named = read_own(drawing)
    from sgloc.evaluate.reorganize import PICTURE, reorganize_drawings
    from sgloc.hub.load import load_model

    pretrained = load_model(checkpoint, chosen_device(device), kind)
    written = reorganize_drawings(pretrained, named, out, temperature=options.temperature, seed=options.seed)
    out = out.rstrip("/")
    for files in list(written.values())[:10]:
        show(", ".join(f"{out}/{file}" for file in files))
    if len(written) > 10:
        show(f"and {len(written) - 10} drawings more")
    show(f"{out}/{PICTURE}")
    empty = [name for name, files in written.items() if f"{name}-redrawn.svg" not in files]
    if empty:
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        logger.warning(
            "%s", f"the model drew nothing for {', '.join(empty[:10])}{more}; so there is no -redrawn.svg of that"
        )


def report(options: ReportOptions, device: DeviceName = "auto") -> None:
    """Write one HTML page of what a run learned: curves, galleries, Rec and Ret, retrieval, a map of codes.

    The page needs nothing else: it can be sent to a friend. Mind the licence of the drawings on it.

    Args:
        options: What it shows, of which run.
        device: Where to compute; auto takes CUDA when there is one.
    """
    from sgloc.report.run import write_report

    out = options.out or f"{options.run.rstrip('/')}/report.html"
    write_report(options.run, out, options, device=chosen_device(device))
    show(out)
