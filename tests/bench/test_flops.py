"""The operation counts computed from shapes equal the operations that PyTorch executes."""

import dataclasses
from typing import get_args

import pytest
import torch

from sgloc.bench.flops import Shapes, drawing_flops, training_flops
from sgloc.bench.timing import executed_flops
from sgloc.inference.sampling import draw
from sgloc.models.sketchgloc.config import CellName, DecoderConfig, EncoderConfig, LossConfig, ModelConfig, ModelName
from sgloc.models.sketchgloc.network import SketchGloc
from tests.batches import make_batch

CELLS = get_args(CellName)
STROKES = [[3, 1], [5], [2, 2, 4], [1], [2, 7]]


def tiny(encoder: CellName, decoder: CellName) -> ModelConfig:
    # All widths differ, so that confusing two of them changes the count.
    return ModelConfig(
        encoder=EncoderConfig(cell=encoder, hidden_size=6),
        decoder=DecoderConfig(cell=decoder, hidden_size=7, num_mixtures=2),
        latent_size=5,
        hyper_size=4,
        hyper_embedding_size=3,
    )


def step_flops(
    config: ModelConfig, loss: LossConfig | None = None, num_parts: int = 1, checkpoint_decoder: bool = False
) -> int:
    """Count the floating-point operations executed by a forward and backward pass."""
    batch, model = make_batch(STROKES, dtype=torch.float32), SketchGloc(config, loss, 20, checkpoint_decoder)
    return executed_flops(lambda: model(batch, num_parts).total.backward())[1]


@pytest.mark.parametrize("checkpoint_decoder", [False, True])
@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize(("encoder", "decoder"), [(cell, cell) for cell in CELLS])
def test_a_step_computes_what_has_to_be_computed_and_nothing_else(
    encoder: CellName, decoder: CellName, num_parts: int, checkpoint_decoder: bool
) -> None:
    config = tiny(encoder, decoder)
    shapes = Shapes.of(make_batch(STROKES), ModelConfig())
    needed = training_flops(config, shapes, num_parts, checkpoint_decoder)
    assert step_flops(config, None, num_parts, checkpoint_decoder) == needed.total
    assert (sum(needed.recomputed.values()) > 0) == (num_parts > 1 or checkpoint_decoder)


@pytest.mark.parametrize(
    ("kind", "graph"), [("sketchgloc", "none"), ("sketchgloc", "temporal"), ("sketch_rnn", "grid9")]
)
def test_what_is_compared_computes_no_more_either(kind: ModelName, graph: str) -> None:
    config = dataclasses.replace(tiny("lstm", "layer_norm"), kind=kind, graph=graph)
    assert step_flops(config) == training_flops(config, Shapes.of(make_batch(STROKES), config)).total


def test_padding_shows() -> None:
    config, shapes = tiny("lstm", "hyper"), Shapes.of(make_batch(STROKES), ModelConfig())
    executed = step_flops(config, LossConfig(pen_loss_on_padding=True))
    # Each of the five sketches is padded to 21 rows; the decoder's cost is that of drawings of 20 points.
    padded = training_flops(config, Shapes(shapes.num_sketches, 0, 5 * 20, 0))
    plain = training_flops(config, shapes)
    for stage in ("decoder", "output"):
        executed -= padded.forward[stage] + padded.backward[stage]
    for stage in ("strokes", "graphs", "latent"):
        executed -= plain.forward[stage] + plain.backward[stage]
    assert executed == 0
    assert padded.forward["decoder"] > plain.forward["decoder"]


@pytest.mark.parametrize("decoder", CELLS)
def test_drawing_computes_no_row_of_a_finished_sketch(decoder: CellName) -> None:
    torch.manual_seed(0)
    config = tiny("lstm", decoder)
    model = SketchGloc(config).eval()
    codes, keys = torch.randn(8, config.latent_size), torch.arange(8)
    drawn, executed = executed_flops(lambda: draw(model.decoder, codes, keys, max_points=6, temperature=1.0))
    lengths = [len(drawing) for drawing in drawn]
    assert len(set(lengths)) > 1
    assert executed == drawing_flops(config, 8, sum(min(length + 1, 6) for length in lengths))


def test_a_step_at_the_published_sizes() -> None:
    # 100 sketches of 48 points and 6 strokes: about 2 GFLOP per sketch.
    flops = training_flops(ModelConfig(), Shapes(100, 600, 4800, 9 * 600))
    assert set(flops.forward) == set(flops.backward) == {"strokes", "graphs", "latent", "decoder", "output"}
    assert flops.forward["graphs"] == 2 * (2 * 5400 * 1024 * 1024)
    assert flops.forward["output"] == 2 * 4900 * 512 * 123
    assert flops.backward["graphs"] == 2 * flops.forward["graphs"]
    assert 1.5e11 < flops.total < 2.5e11


def test_a_node_has_a_row_in_the_graphs_in_which_it_has_a_neighbour() -> None:
    # Each node is its own neighbour in the centre cell; the second node is to the right of the first and above it.
    batch = make_batch([[2, 2], [1]])
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [5.0, 5.0]])
    shapes = Shapes.of(dataclasses.replace(batch, points=points), ModelConfig())
    assert shapes == Shapes(num_sketches=2, num_nodes=3, num_points=5, num_graph_rows=3 + 2)


def test_products_of_all_kinds_are_counted() -> None:
    rows, weight, total = torch.ones(3, 4), torch.ones(4, 5, requires_grad=True), torch.zeros(3, 5)
    assert executed_flops(lambda: (rows @ weight).sum().backward())[1] == 2 * 2 * 3 * 4 * 5
    result, flops = executed_flops(lambda: total.addmm_(rows, weight.detach()))
    assert result is total
    assert flops == 2 * 3 * 4 * 5
    batched = torch.zeros(2, 3, 5)
    assert executed_flops(lambda: batched.baddbmm_(rows.expand(2, 3, 4), torch.ones(2, 4, 5)))[1] == 2 * 2 * 3 * 4 * 5
    assert executed_flops(lambda: torch.mm(rows, weight.detach(), out=torch.empty(3, 5)))[1] == 2 * 3 * 4 * 5
    assert executed_flops(lambda: rows.sum(0))[1] == 0
