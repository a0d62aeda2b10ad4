"""What is done with a trained model: `sgloc generate`, `evaluate`, `reorganize` and `report`."""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgloc.cli.shared import CheckpointOptions, DeviceOptions, KindOptions, OutOptions, ShardsOptions, chosen_device
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.evaluate.options import EvaluateOptions, GenerateOptions, SamplingOptions
    from sgloc.report.options import ReportOptions

logger = logging.getLogger(__name__)


def generate(
    model: CheckpointOptions,
    kind: KindOptions,
    shards: ShardsOptions,
    into: OutOptions,
    options: "GenerateOptions",
    on: DeviceOptions,
) -> None:
    """Redraw sketches with a trained model: simplified ndjson, an SVG each, and a gallery."""
    from sgloc.evaluate.generate import generate as redraw

    device = chosen_device(on.device)
    drawn = redraw(model.checkpoint, shards.data, into.out, options, device=device, kind=kind.kind)
    out = into.out.rstrip("/")
    show(f"{len(drawn)} sketches redrawn: {out}/gallery.png, {out}/redrawn.ndjson, {out}/svg/")


@dataclass(frozen=True)
class JudgeOptions:
    """What judges drawings."""

    classifier: str = ""
    """Run of `sgloc train-classifier` on the same shards; without it Rec is not measured."""


def evaluate(
    model: CheckpointOptions,
    kind: KindOptions,
    shards: ShardsOptions,
    into: OutOptions,
    options: "EvaluateOptions",
    on: DeviceOptions,
    judge: JudgeOptions,
) -> None:
    """Measure a trained model on all test drawings: Rec, Ret, and how far strokes are from their right places.

    In one process, or in any number under torchrun, with the same result; on a CPU each uses one core. An evaluation
    that was stopped goes on when it is started again.
    """
    from sgloc import dist
    from sgloc.evaluate.run import TABLES
    from sgloc.evaluate.run import evaluate as measure
    from sgloc.evaluate.tables import overall

    placement = dist.resolve_placement(os.environ)
    device = chosen_device(on.device, placement)
    with dist.process_group(placement, device) as ranks:
        results = measure(
            model.checkpoint,
            shards.data,
            judge.classifier,
            into.out,
            options,
            ranks,
            kind=kind.kind,
        )
    if results is not None:
        show(overall(results))
        show(f"\nby category: {into.out.rstrip('/')}/{TABLES}")


@dataclass(frozen=True)
class DrawingOptions:
    """Your own drawings."""

    drawing: str
    """Path or URL of the drawing: an .svg or .svgz file; an .ndjson file with a drawing a line, as QuickDraw has them;
    or a .json file, a list of strokes, each a list of points [x, y]."""


def reorganize(
    drawing: DrawingOptions,
    model: CheckpointOptions,
    kind: KindOptions,
    into: OutOptions,
    options: "SamplingOptions",
    on: DeviceOptions,
) -> None:
    """Put the strokes of your own drawing where they belong: SVG in, SVG out, and a picture of before and after.

    The drawing's own strokes are moved, and the model redraws it. The first stroke stays where it is.
    """
    from sgloc.sketch.reading import read_own

    # A drawing that cannot be read is refused before the model, and torch with it, is loaded.
    named = read_own(drawing.drawing)
    from sgloc.evaluate.reorganize import PICTURE, reorganize_drawings
    from sgloc.hub.load import load_model

    pretrained = load_model(model.checkpoint, chosen_device(on.device), kind.kind)
    written = reorganize_drawings(pretrained, named, into.out, temperature=options.temperature, seed=options.seed)
    out = into.out.rstrip("/")
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


def report(options: "ReportOptions", on: DeviceOptions) -> None:
    """Write one HTML page of what a run learned: curves, galleries, Rec and Ret, retrieval, a map of codes.

    The page needs nothing else: it can be sent to a friend. Mind the licence of the drawings on it.
    """
    from sgloc.report.run import write_report

    out = options.out or f"{options.run.rstrip('/')}/report.html"
    write_report(options.run, out, options, device=chosen_device(on.device))
    show(out)
