"""The baseline graphs, graph ablations and sequence encoder against literal implementations."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sgloc.models.sketchgloc.config import DecoderConfig, EncoderConfig, LossConfig, ModelConfig, ModelName
from sgloc.models.sketchgloc.encoder import SequenceEncoder
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.nn.graphs import GraphConvolution
from sgloc.nn.recurrent.cells import LSTM
from sgloc.sketch.ragged import SketchBatch
from tests.batches import make_batch
from tests.oracle import layout

STROKES = [[3, 1, 4, 2, 2], [2], [5, 2, 1, 3, 2, 1, 1], [7, 7]]
SINGLE_GRAPHS: list[str] = ["none", "complete", "temporal", "nearest"]
NUM_NEIGHBOURS = 2


def make_model(graph: str = "grid9", kind: ModelName = "sketchgloc", loss: LossConfig | None = None) -> SketchGloc:
    torch.manual_seed(0)
    config = ModelConfig(
        EncoderConfig("lstm", 6, 0.8),
        DecoderConfig("lstm", 8, num_mixtures=3),
        kind=kind,
        graph=graph,
        num_neighbours=NUM_NEIGHBOURS,
        latent_size=5,
    )
    return SketchGloc(config, loss).double()


def strokes_of(sketches: SketchBatch, sketch: int) -> list[np.ndarray]:
    nodes = range(int(sketches.sketch_node_offsets[sketch]), int(sketches.sketch_node_offsets[sketch + 1]))
    offsets = sketches.node_offsets.tolist()
    return [sketches.points[offsets[node] : offsets[node + 1]].numpy() for node in nodes]


def linked(graph: str, strokes: list[np.ndarray]) -> np.ndarray:
    """Compute the linked pairs of nodes from the graph's definition: bool [M, M]."""
    centres = [(stroke.min(0) + stroke.max(0)) / 2 for stroke in strokes]
    adjacency = np.eye(len(strokes), dtype=bool)
    for i, j in itertools.permutations(range(len(strokes)), 2):
        others = sorted((np.sum((centres[i] - centres[k]) ** 2), k) for k in range(len(strokes)) if k != i)
        is_near = j in [k for _, k in others[:NUM_NEIGHBOURS]]
        if graph == "complete" or (graph == "temporal" and abs(i - j) == 1) or (graph == "nearest" and is_near):
            adjacency[i, j] = adjacency[j, i] = True
    return adjacency


@pytest.mark.parametrize("graph", SINGLE_GRAPHS)
def test_messages_pass_over_the_links_of_the_definition(graph: str) -> None:
    model, sketches = make_model(graph).eval(), make_batch(STROKES)
    convolution = model.encoder.graph
    assert isinstance(convolution, GraphConvolution)
    w1, w2 = (weight[0].detach().numpy() for weight in convolution.parameters())
    width = len(w1)
    embeddings = torch.randn(len(sketches.node_offsets) - 1, width, dtype=torch.float64)
    found = convolution(embeddings, sketches).detach().numpy()
    for sketch in range(len(sketches)):
        adjacency = linked(graph, strokes_of(sketches, sketch)).astype(float)
        nodes = slice(*sketches.sketch_node_offsets[sketch : sketch + 2].tolist())
        degrees = np.diag(adjacency.sum(1) ** -0.5)
        h0 = degrees @ adjacency @ degrees @ embeddings[nodes].numpy()
        h2 = np.maximum(np.maximum(h0 @ w1, 0) @ w2, 0)
        np.testing.assert_allclose(found[sketch], ((h0 + h2) / 2).sum(0), rtol=1e-12)


def test_of_boxes_as_near_as_each_other_the_earlier_is_taken() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    ones = torch.arange(6)
    sketch = torch.tensor([0, 5])
    batch = SketchBatch(points, points, torch.ones(5, dtype=torch.bool), ones, sketch, sketch, torch.tensor([0]))
    model = make_model("nearest").eval()
    unit = torch.zeros(5, 12, dtype=torch.float64)
    unit[:, :5] = torch.eye(5)
    convolution = model.encoder.graph
    assert isinstance(convolution, GraphConvolution)
    reached = convolution._neighbour_sums(unit, batch)[0, 0, :5]
    assert (reached != 0).tolist() == linked("nearest", [point[None].numpy() for point in points])[0].tolist()


def test_the_sequence_encoder_is_a_bidirectional_lstm_over_offsets() -> None:
    model, sketches = make_model(kind="sketch_rnn").eval(), make_batch(STROKES)
    encoder = model.encoder
    assert isinstance(encoder, SequenceEncoder)
    library = torch.nn.LSTM(4, 6, bidirectional=True, batch_first=True).double()
    cells = encoder.points.forward_cell, encoder.points.backward_cell
    with torch.no_grad():
        weights = [weight for cell in cells if isinstance(cell, LSTM) for weight in cell.library_weights()]
        for own, weight in zip(library.parameters(), weights, strict=True):
            own.copy_(weight)
        code = model.encode(sketches).y
    for sketch, (start, stop) in enumerate(itertools.pairwise(sketches.sketch_point_offsets.tolist())):
        points, lift = sketches.points[start:stop].numpy(), sketches.pen_lift[start:stop].numpy()
        rows = np.column_stack([np.diff(points, axis=0, prepend=np.zeros((1, 2))), ~lift, lift])
        _, (h, _) = library(torch.from_numpy(rows)[None])
        expected = encoder.mean(h.view(1, -1)).detach().numpy()
        np.testing.assert_allclose(code[sketch].numpy(), expected[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "graph"), [*(("sketchgloc", graph) for graph in SINGLE_GRAPHS), ("sketch_rnn", "none")]
)
@pytest.mark.parametrize("training", [True, False])
def test_a_sketch_does_not_depend_on_its_neighbours_in_the_batch(kind: ModelName, graph: str, training: bool) -> None:
    model, sketches = make_model(graph, kind).train(training), make_batch(STROKES)
    whole = model.encoder.gather(sketches)
    parts = [model.encoder.gather(sketches.part(index, index + 1)) for index in range(len(sketches))]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "graph"), [*(("sketchgloc", graph) for graph in SINGLE_GRAPHS), ("sketch_rnn", "none")]
)
def test_every_weight_learns(kind: ModelName, graph: str) -> None:
    model = make_model(graph, kind, LossConfig(kl_weight=0.5))
    model(make_batch(STROKES)).total.backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_the_weight_of_the_divergence_grows_in_training() -> None:
    loss = LossConfig(kl_weight=0.5, kl_start=0.1, kl_decay=0.9)
    model, sketches = make_model(kind="sketch_rnn", loss=loss), make_batch(STROKES)

    def weight(step: int) -> float:
        model.begin_step(step)
        losses = model(sketches)
        share: Tensor = (losses.total - losses.mixture - losses.pen) / losses.divergence
        return share.item()

    assert [weight(step) for step in (0, 1, 7, 500)] == pytest.approx(
        [0.5 * 0.1, 0.5 * (1 - 0.9 * 0.9), 0.5 * (1 - 0.9 * 0.9**7), 0.5]
    )
    model.eval()
    assert weight(0) == pytest.approx(0.5)


def middle_cell(box: Sequence[float], other: Sequence[float]) -> int:
    """Return the bit of the cell, in the grid of `box`, that contains the centre of `other`; boxes (x0, x1, y0, y1)."""
    places = []
    for low, high, value in ((*box[:2], sum(other[:2]) / 2), (*box[2:], sum(other[2:]) / 2)):
        places.append(0 if value < low else 2 if value > high else 1)
    return 1 << (3 * places[0] + places[1])


ABLATIONS: dict[str, dict[str, Any]] = {
    "shared": {"graph_weights": "shared"},
    "no center": {"graph_center": False},
    "mean": {"graph_mean": True},
    "middle": {"graph_relation": "middle"},
    "one layer": {"graph_layers": 1},
    "three layers": {"graph_layers": 3},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_what_is_left_out_of_the_nine_graphs(name: str) -> None:
    changes, sketches = ABLATIONS[name], make_batch(STROKES)
    torch.manual_seed(0)
    config = dataclasses.replace(make_model().config, **changes)
    convolution = SketchGloc(config).encoder.graph
    assert isinstance(convolution, GraphConvolution)
    convolution = convolution.double()
    width = 12
    embeddings = torch.randn(len(sketches.node_offsets) - 1, width, dtype=torch.float64)
    found = convolution(embeddings, sketches).detach().numpy()
    weights = [weight.detach().numpy() for _, weight in convolution.named_parameters()]
    assert len(weights) == config.graph_layers
    assert {len(weight) for weight in weights} == {1 if name == "shared" else 9}
    for sketch in range(len(sketches)):
        strokes = strokes_of(sketches, sketch)
        boxes = [layout.node_box(stroke) for stroke in strokes]
        bits = np.array(
            [[middle_cell(i, j) for j in boxes] for i in boxes] if name == "middle" else layout.adjacency(boxes)
        )
        nodes = slice(*sketches.sketch_node_offsets[sketch : sketch + 2].tolist())
        expected = np.zeros(width)
        for cell in range(9):
            adjacency = (bits >> cell & 1).astype(float)
            if name == "no center" and cell == 4:
                adjacency[:] = 0
            if name == "mean":
                adjacency /= np.maximum(adjacency.sum(1, keepdims=True), 1)
            h0 = h = adjacency @ embeddings[nodes].numpy()
            for weight in weights:
                h = np.maximum(h @ weight[0 if name == "shared" else cell], 0)
            expected += ((h0 + h) / 2).sum(0)
        np.testing.assert_allclose(found[sketch], expected, rtol=1e-10)
