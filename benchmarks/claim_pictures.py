"""The pictures of the comparison in docs/RESULTS.md, from the runs of `python -m benchmarks.claim`.

    python -m benchmarks.claim_pictures docs

They show only what the models drew, never QuickDraw's own drawings, neither clean nor disturbed.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.claim import MODELS, SEEDS, SHARDS, run_dir
from sgloc.data.batch import Preparation
from sgloc.data.manifest import load_manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.hub.load import load_model
from sgloc.inference.redraw import redraw
from sgloc.program import run_program
from sgloc.sketch.render import draw_gallery

DISTURB_SCALE = 0.1


def draw_curves(path: Path) -> None:
    """Plot the validation loss over steps, one line per model and seed."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for number, name in enumerate(MODELS):
        for seed in SEEDS:
            lines = (run_dir(name, seed) / "metrics.jsonl").read_text().splitlines()
            records = [record for record in map(json.loads, lines) if record["event"] == "validation"]
            steps, losses = zip(*((record["step"], record["loss"]) for record in records), strict=True)
            label = name if seed == SEEDS[0] else None
            axes.plot(steps, losses, color=f"C{number}", linewidth=1, marker=".", markersize=3, label=label)
    axes.set(xlabel="step", ylabel="validation loss (nats per drawing)", yscale="log")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("{x:.0f}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)


def draw_sketches(path: Path) -> None:
    """Draw a gallery of each model's output, first seed, for each category's first test drawing, disturbed."""
    manifest = load_manifest(SHARDS)
    reader = ShardReader(SHARDS, manifest, "test")
    (everything,) = fixed_batches(reader, np.arange(reader.num_sketches), batch_size=reader.num_sketches)
    _, first = np.unique(everything.category, return_index=True)
    (packed,) = fixed_batches(reader, first, batch_size=len(first))
    rows = []
    for name in MODELS:
        pretrained = load_model(str(run_dir(name, SEEDS[0])), torch.device("cpu"))
        from_first_point = starts_at_first_point(manifest, pretrained.origin, SHARDS)
        prepare = Preparation(pretrained.scale, 0, DISTURB_SCALE, from_first_point=from_first_point)
        sketches = prepare(packed, pretrained.device)
        drawn = redraw(pretrained.model, sketches, pretrained.scale, max_points=pretrained.longest_points)
        rows.append((name, [one.redrawn for one in drawn]))
    captions = [manifest.categories[number] for number in packed.category]
    path.write_bytes(draw_gallery(rows, columns=10, captions=captions))


def main(words: Sequence[str]) -> None:
    """Draw both pictures into the given folder."""
    folder = Path(words[0])
    draw_curves(folder / "claim-curves.png")
    draw_sketches(folder / "claim-gallery.png")


if __name__ == "__main__":
    run_program("benchmarks.claim_pictures", main)
