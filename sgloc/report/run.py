"""Collecting the content of a report and writing the page."""

import json
import math
from typing import Any

import torch

from sgloc.errors import CheckpointError, ConfigError, DataError
from sgloc.hub.load import load_model
from sgloc.hub.split import Split, open_split
from sgloc.inference.pretrained import Pretrained
from sgloc.masking import is_masked, mask
from sgloc.report.curves import PLOTS, plot, read_records
from sgloc.report.latent import color_of, draw_map
from sgloc.report.options import ReportOptions
from sgloc.report.sections import look
from sgloc.sketch.svg.write import to_svg
from sgloc.storage import Storage, write_file, writing
from sgloc.templates import fill
from sgloc.tf32 import float32_products
from sgloc.train.checkpoint.format import CheckpointManifest, read_manifest
from sgloc.train.checkpoint.load import use_checkpoint
from sgloc.train.record import recorded_place

# Default folder of `sgloc evaluate` within a run folder, and its results file.
_EVALUATED, _RESULTS = "evaluated", "results.json"
# r of METHOD 3 when training does not move strokes.
_DISTURB_SCALE = 0.1


def write_report(run_dir: str, out: str, options: ReportOptions, *, device: torch.device) -> None:
    """Write a run's report.

    Args:
        run_dir: folder or URL of the run.
        out: file or URL to write to.
        options: what to show.
        device: device to compute on.

    Raises:
        SglocError: if the run, its shards or its evaluation cannot be used, or the file cannot be written.
    """
    folder, manifest = use_checkpoint(run_dir, read_manifest)
    tables = _tables(run_dir, options.evaluated)
    pretrained = load_model(folder, device, options.kind)
    data = options.data or str(manifest.config["data"]["path"])
    split = _open(run_dir, data, options, pretrained)
    disturb = manifest.config["data"].get("disturb") or _DISTURB_SCALE
    with float32_products(device):
        shown = look(pretrained, split, disturb, options)
    facts = _facts(pretrained, manifest)
    facts += [
        ("shown on", f"{split.reader.num_sketches:,} test drawings of {recorded_place(data)}"),
        ("licence of the drawings", split.reader.manifest.licence or "not stated"),
        ("checkpoint", recorded_place(folder)),
    ]
    records = read_records(run_dir)
    page = fill(
        "report/page.html",
        title=f"SketchGloc: {mask(run_dir).rstrip('/').rsplit('/', 1)[-1]}",
        facts=facts,
        plots=[(name, plot(records, name)) for name in PLOTS] if records else [],
        tables=tables,
        shown=shown,
        to_svg=to_svg,
        draw_map=draw_map,
        color_of=color_of,
    )
    with writing(out, "the report"):
        write_file(out, page.encode())


def _facts(pretrained: Pretrained, manifest: CheckpointManifest) -> list[tuple[str, str]]:
    """Describe the model and its training as (name, value) pairs."""
    model, best = pretrained.model.config, manifest.state.get("best_loss")
    graph = f", graph {model.graph}" if model.kind == "sketchgloc" else ""
    parts = [getattr(model, name) for name in ("encoder", "decoder") if hasattr(model, name)]
    cells = "".join(f"{part.cell} {part.hidden_size}, " for part in parts)
    num_weights = sum(parameter.numel() for parameter in pretrained.model.parameters())
    drawings = f"{manifest.num_drawings:,} drawings of {manifest.num_categories} categories"
    return [
        ("model", f"{model.kind}{graph}; {cells}codes of {pretrained.code_width}; {num_weights:,} weights"),
        ("trained on", f"{drawings}, in {manifest.step:,} steps of {manifest.global_batch}"),
        ("validation loss", f"{best:.4f}" if isinstance(best, float) and math.isfinite(best) else "not measured"),
    ]


def _open(run_dir: str, data: str, options: ReportOptions, pretrained: Pretrained) -> Split:
    """Open the test split of `data`, the shards set in the options or else those that the run was trained on."""
    if is_masked(data):
        raise ConfigError(
            f"{run_dir} was trained on the shards {data}, a URL whose credentials are not stored in the run; "
            "pass the folder or URL of the shards (data)"
        )
    try:
        return open_split(pretrained, data, "test", options.seed)
    except DataError as error:
        if options.data:
            raise
        raise DataError(
            f"{run_dir} was trained on the shards {data}, which cannot be read here ({error}); "
            "pass a copy of them or other shards (data)"
        ) from error


def _tables(run_dir: str, evaluated: str) -> list[dict[str, Any]]:
    """Read the tables written by `sgloc evaluate`; empty if the run has not been evaluated."""
    storage = Storage(evaluated or f"{run_dir.rstrip('/')}/{_EVALUATED}")
    if not storage.exists(_RESULTS):
        if evaluated:
            raise DataError(f"{evaluated} holds no {_RESULTS}; pass the folder of a completed `sgloc evaluate`")
        return []
    with storage.reading(_RESULTS):
        content = storage.content(_RESULTS)
    try:
        return json.loads(content)["tables"]  # type: ignore[no-any-return]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{storage.location}/{_RESULTS} is damaged or of an old version ({error}); run `sgloc evaluate` again"
        ) from error
