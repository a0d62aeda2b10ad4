"""Statistics of the encoders trained by `python -m benchmarks.claim`: their sums over strokes, and their latent codes.

    python -m benchmarks.claim_codes grid9-0 complete-0 none-0 sketch_rnn-0

For each run, over all test drawings:

- the growth of the sum over strokes, as a power of the number of strokes;
- its tails after batch norm, as the kurtosis of a component (3 for a normal distribution);
- the change of the codes when strokes are moved, as a share of the variance between drawings;
- the number of directions that the codes use, as the participation ratio of their variances.

Before the table, one line on the relations between strokes: the number of cells that they mark, and how often they
change when strokes are moved.
"""

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.claim import RUNS, SHARDS
from sgloc import ops
from sgloc.config import OriginName
from sgloc.data.batch import Preparation
from sgloc.data.manifest import load_manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.hub.load import load_model
from sgloc.inference.pretrained import Pretrained
from sgloc.models.sketchgloc.encoder import LayoutEncoder
from sgloc.nn.graphs import middle_adjacency
from sgloc.program import run_program
from sgloc.sketch.ragged import SketchBatch

DISTURBANCES = (0.1, 0.3)


def read_test_split(scale: float, disturb: float, origin: OriginName) -> SketchBatch:
    """Return all test drawings as one batch."""
    manifest = load_manifest(SHARDS)
    reader = ShardReader(SHARDS, manifest, "test")
    (packed,) = fixed_batches(reader, np.arange(reader.num_sketches), batch_size=reader.num_sketches)
    from_first_point = starts_at_first_point(manifest, origin, SHARDS)
    return Preparation(scale, 0, disturb, from_first_point=from_first_point)(packed, torch.device("cpu"))


def growth_and_tails(encoder: LayoutEncoder, sketches: SketchBatch) -> tuple[str, str]:
    """Return the exponent with which the sum grows in the number of strokes, and the kurtosis of its components."""
    gathered = encoder.gather(sketches).double()
    num_strokes = sketches.sketch_node_offsets.diff().double()
    power = np.polyfit(num_strokes.log().numpy(), gathered.norm(dim=1).log().numpy(), 1)[0]
    normalised = encoder.batch_norm(gathered.float()).double()
    centered = normalised - normalised.mean(0)
    kurtosis = (centered.pow(4).mean(0) / centered.square().mean(0).square()).mean()
    return f"{power:.2f}", f"{kurtosis:.1f}"


@torch.no_grad()
def describe(pretrained: Pretrained) -> list[str]:
    """Return the cells of a model's row."""
    model, clean = pretrained.model, read_test_split(pretrained.scale, 0.0, pretrained.origin)
    sums = growth_and_tails(model.encoder, clean) if isinstance(model.encoder, LayoutEncoder) else ("", "")
    codes = model.encode(clean).y.double()
    variance = (codes - codes.mean(0)).square().sum(1).mean()
    shares = []
    for disturb in DISTURBANCES:
        moved = model.encode(read_test_split(pretrained.scale, disturb, pretrained.origin)).y.double()
        shares.append(f"{100 * float((moved - codes).square().sum(1).mean() / variance):.1f} %")
    spectrum = torch.linalg.eigvalsh(torch.cov(codes.T))
    return [*sums, *shares, f"{float(spectrum.sum().square() / spectrum.square().sum()):.1f}"]


def describe_relations(scale: float) -> str:
    """Report the cells that a stroke marks in another stroke's grid, and how often moving strokes changes them."""
    clean, moved = (read_test_split(scale, disturb, "first_point") for disturb in (0.0, DISTURBANCES[0]))
    published, after = (
        ops.node_adjacency(one.points, one.node_offsets, one.sketch_node_offsets) for one in (clean, moved)
    )
    num_strokes, width = clean.sketch_node_offsets.diff(), published.shape[1]
    is_real = torch.arange(width)[None] < num_strokes[:, None]
    pairs = is_real[:, :, None] & is_real[:, None, :] & ~torch.eye(width, dtype=torch.bool)
    cells = sum((published[pairs].int() >> cell) & 1 for cell in range(ops.NUM_CELLS))
    changed = (published != after)[pairs].float().mean()
    middle_changed = (middle_adjacency(clean, published) != middle_adjacency(moved, after))[pairs].float().mean()
    return (
        f"cells per pair: {torch.as_tensor(cells).float().mean():.2f}; relations changed by r = {DISTURBANCES[0]}: "
        f"{changed:.0%}, with the middle cell alone {middle_changed:.0%}"
    )


def main(words: Sequence[str]) -> None:
    """Print a table with a row for each named run."""
    print(describe_relations(load_manifest(SHARDS).scale), end="\n\n")
    head = ["run", "growth", "kurtosis", *(f"moved by r = {scale}" for scale in DISTURBANCES), "directions"]
    print("| " + " | ".join(head) + " |\n| --- |" + " ---: |" * (len(head) - 1))
    for name in words:
        pretrained = load_model(str(RUNS / name), torch.device("cpu"))
        print("| " + " | ".join([name, *describe(pretrained)]) + " |")


if __name__ == "__main__":
    run_program("benchmarks.claim_codes", main)
