"""Commands for a trained model: `sgloc generate`, `evaluate`, `reorganize` and `report`."""

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
    """Redraw sketches with a trained model; write simplified ndjson, one SVG per sketch, and a gallery.

    Args:
        checkpoint: Folder or URL of a checkpoint, of an exported model, or of a run to use its best checkpoint.
        data: Folder or URL of shards.
        out: Folder or URL to write to.
        options: What to redraw, and how.
        kind: Recipe of a model that neither sgloc nor an installed package provides, as package:Recipe; its code is
            imported.
        device: Device to compute on; auto uses CUDA if available.
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
    """Evaluate a trained model on all test drawings: Rec, Ret, and the distance of strokes from their true positions.

    Runs in one process, or in any number of processes under torchrun, with the same result; on a CPU each process uses
    one core. An interrupted evaluation resumes when started again.

    Args:
        checkpoint: Folder or URL of a checkpoint, of an exported model, or of a run to use its best checkpoint.
        data: Folder or URL of shards.
        out: Folder or URL to write to.
        options: What to measure, and how.
        kind: Recipe of a model that neither sgloc nor an installed package provides, as package:Recipe; its code is
            imported.
        device: Device to compute on; auto uses CUDA if available.
        classifier: Folder or URL of a `sgloc train-classifier` run on the same shards; without it, Rec is not measured.
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
    """Move the strokes of your own drawing to where they belong; write SVG files and a before-and-after picture.

    Writes two versions: the drawing's own strokes moved, and the model's redrawing. The first stroke stays in place.

    Args:
        drawing: Path or URL of the drawing: an .svg or .svgz file, an .ndjson file with one drawing per line in
            QuickDraw's format, or a .json file with a list of strokes, each a list of points [x, y].
        checkpoint: Folder or URL of a checkpoint, of an exported model, or of a run to use its best checkpoint.
        out: Folder or URL to write to.
        options: How to sample the pen.
        kind: Recipe of a model that neither sgloc nor an installed package provides, as package:Recipe; its code is
            imported.
        device: Device to compute on; auto uses CUDA if available.
    """
    from sgloc.sketch.reading import read_own

    # Refuse an unreadable drawing before importing torch and loading the model.
    named = read_own(drawing)
    from sgloc.evaluate.reorganize import PICTURE, reorganize_drawings
    from sgloc.hub.load import load_model

    pretrained = load_model(checkpoint, chosen_device(device), kind)
    written = reorganize_drawings(pretrained, named, out, temperature=options.temperature, seed=options.seed)
    out = out.rstrip("/")
    for files in list(written.values())[:10]:
        show(", ".join(f"{out}/{file}" for file in files))
    if len(written) > 10:
        show(f"and {len(written) - 10} more drawings")
    show(f"{out}/{PICTURE}")
    empty = [name for name, files in written.items() if f"{name}-redrawn.svg" not in files]
    if empty:
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        logger.warning(
            "%s", f"the model drew nothing for {', '.join(empty[:10])}{more}; no -redrawn.svg was written for these"
        )


def report(options: ReportOptions, device: DeviceName = "auto") -> None:
    """Write a report on a run as one HTML page: curves, galleries, Rec and Ret, retrieval, a map of latent codes.

    The page is self-contained and can be shared as one file. Mind the licence of the drawings on it.

    Args:
        options: The run, and what to show of it.
        device: Device to compute on; auto uses CUDA if available.
    """
    from sgloc.report.run import write_report

    out = options.out or f"{options.run.rstrip('/')}/report.html"
    write_report(options.run, out, options, device=chosen_device(device))
    show(out)
