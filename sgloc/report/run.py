"""Gathering what a report says, and writing it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fsspec.core
import torch

from sgloc.data.manifest import Manifest, load_manifest
from sgloc.errors import CheckpointError, ConfigError, DataError
from sgloc.evaluate.run import RESULTS
from sgloc.hub.load import load_model
from sgloc.masking import is_masked, mask
from sgloc.report.curves import plot_losses, plot_speed, read_records
from sgloc.report.page import Page
from sgloc.report.sections import look
from sgloc.storage import Storage
from sgloc.tf32 import float32_products
from sgloc.train.checkpoint import read_manifest, use_checkpoint
from sgloc.train.recorded import recorded_place

EVALUATED = "evaluated"
# Where the training moves no strokes.
_DISTURB_SCALE = 0.1


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        data: folder or URL of shards; empty: those that the run was trained on.
        evaluated: folder of `sgloc evaluate`; empty: `evaluated` in the run's folder, if it is there.
        count: most test drawings on the map.
        num_examples: redrawings, and retrievals.
        num_between: drawings between two.
        seed: of the disturbance.
    """

    data: str = ""
    evaluated: str = ""
    count: int = 2000
    num_examples: int = 10
    num_between: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("count", 2, 20_000), ("num_examples", 1, 100), ("num_between", 1, 100)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be from {least} to {most:,}, not {getattr(self, name)}")


def write_report(
    run_dir: str, out: str, options: ReportOptions, *, device: torch.device, say: Callable[[str], None]
) -> None:
    """Write a run's report.

    Args:
        run_dir: folder or URL of the run.
        out: file or URL to write to.
        options: what to show.
        device: to compute on.
        say: is told what is done, and of checkpoints that are skipped.

    Raises:
        SglocError: if the run, its shards or its evaluation cannot be used, or the file cannot be written.
    """
    folder, manifest = use_checkpoint(run_dir, read_manifest, say)
    results = _results(run_dir, options.evaluated)
    pretrained = load_model(folder, device, say)
    data, shards = _shards(run_dir, options.data, str(manifest.config["data"]["path"]))
    with float32_products(device):
        shown = look(
            pretrained,
            data,
            shards,
            disturb=manifest.config["data"]["disturb"] or _DISTURB_SCALE,
            count=options.count,
            num_examples=options.num_examples,
            num_between=options.num_between,
            seed=options.seed,
            say=say,
        )
    records = read_records(run_dir)
    model = pretrained.model.config
    kind = f"{model.kind}, graph {model.graph}" if model.kind == "sketchgloc" else model.kind
    best = manifest.state.get("best_loss")
    num_parameters = sum(parameter.numel() for parameter in pretrained.model.parameters())
    facts = [
        ("model", f"{kind}; {model.encoder.cell} {model.encoder.hidden_size}, "
         f"{model.decoder.cell} {model.decoder.hidden_size}, codes of {model.latent_size}; {num_parameters:,} weights"),
        ("trained on", f"{manifest.num_drawings:,} drawings of {manifest.num_categories} categories, in "
         f"{manifest.step:,} steps of {manifest.global_batch}"),
        ("validation loss", f"{best:.4f}" if isinstance(best, float) and math.isfinite(best) else "not measured"),
        ("shown on", f"{shards.splits['test'].num_sketches:,} test drawings of {recorded_place(data)}"),
        ("licence of the drawings", shards.licence or "not told"),
        ("checkpoint", recorded_place(folder)),
    ]  # fmt: skip
    page = Page(
        title=f"SketchGloc: {mask(run_dir).rstrip('/').rsplit('/', 1)[-1]}",
        facts=facts,
        losses=plot_losses(records) if records else "",
        speed=plot_speed(records) if records else "",
        results=results,
        shown=shown,
    )
    try:
        with fsspec.open(out, "wb") as file:
            file.write(page.html().encode())
    except OSError as error:
        raise DataError(f"cannot write {out} ({error}); give an --out that can be written") from error


def _shards(run_dir: str, given: str, trained_on: str) -> tuple[str, Manifest]:
    """The shards to show the run on, and their manifest: those that are given, else those that it was trained on."""
    if given:
        return given, load_manifest(given)
    if is_masked(trained_on):
        raise ConfigError(
            f"{run_dir} was trained on the shards of {trained_on}, a URL whose secret a run does not keep; give --data"
        )
    try:
        return trained_on, load_manifest(trained_on)
    except DataError as error:
        raise DataError(
            f"{run_dir} was trained on the shards of {trained_on}, which cannot be read here ({error}); "
            "--data names others, or the same elsewhere"
        ) from error


def _results(run_dir: str, evaluated: str) -> dict[str, Any] | None:
    """What `sgloc evaluate` wrote, if it did."""
    storage = Storage(evaluated or f"{run_dir.rstrip('/')}/{EVALUATED}")
    if not storage.exists(RESULTS):
        if evaluated:
            raise DataError(f"{evaluated} holds no {RESULTS}; give a folder of `sgloc evaluate` that has ended")
        return None
    with storage.reading(RESULTS):
        content = storage.content(RESULTS)
    try:
        results = json.loads(content)
        if results["format"] != "sgloc-evaluation":
            raise ValueError("it is of another format")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{storage.location}/{RESULTS} is damaged ({error}); evaluate again") from error
    return results  # type: ignore[no-any-return]
