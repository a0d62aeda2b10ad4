"""Encoder, decoder and loss against the oracle, sketch by sketch, in float64."""

import math

import numpy as np
import pytest
import torch

from sgloc import ops, random
from sgloc.models.sketchgloc.config import CellName, LossConfig, ModelConfig
from sgloc.models.sketchgloc.decoder import Decoder
from sgloc.models.sketchgloc.encoder import LayoutEncoder
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.nn.mixture import split_output
from sgloc.nn.recurrent.bidirectional import Bidirectional, recurrent_masks
from sgloc.nn.recurrent.cells import Cell
from sgloc.random import Purpose
from sgloc.sketch.ragged import SketchBatch
from sgloc.train.engine.clipping import VariableClipping
from tests.batches import make_batch
from tests.nn.models import KEEP, STROKES, make_model
from tests.nn.recurrent.cells import CELLS, oracle_parameters, split_mask
from tests.oracle import layout, network


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def slices(offsets: torch.Tensor) -> list[slice]:
    return [slice(start, stop) for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def masks_of(cell: Cell, model: SketchGloc, sketches: SketchBatch, sketch: int, purpose: Purpose, num_steps: int):  # type: ignore[no-untyped-def]
    """Return the counter-based recurrent dropout masks of a sketch; ones in evaluation."""
    if not model.training:
        return lambda step: split_mask(cell, torch.ones(cell.mask_size, dtype=torch.float64))
    keys = sketches.random_key[sketch].expand(num_steps)
    masks = recurrent_masks(cell, keys, purpose, torch.arange(num_steps), KEEP).double()
    return lambda step: split_mask(cell, masks[step])


def oracle_gather(model: SketchGloc, sketches: SketchBatch, sketch: int) -> np.ndarray:
    encoder = model.encoder
    assert isinstance(encoder, LayoutEncoder)
    first_point = int(sketches.sketch_point_offsets[sketch])
    num_points = int(sketches.sketch_point_offsets[sketch + 1]) - first_point
    nodes = slices(sketches.node_offsets)[slices(sketches.sketch_node_offsets)[sketch]]
    strokes = encoder.strokes
    forward_masks = masks_of(strokes.forward_cell, model, sketches, sketch, Purpose.ENCODER_FORWARD, num_points)
    backward_masks = masks_of(strokes.backward_cell, model, sketches, sketch, Purpose.ENCODER_BACKWARD, num_points)
    embeddings = [
        network.encode_node(
            model.config.encoder.cell,
            oracle_parameters(strokes.forward_cell),
            oracle_parameters(strokes.backward_cell),
            numpy_of(sketches.points[node]),
            lambda point, node=node: forward_masks(node.start - first_point + point),  # type: ignore[misc]
            lambda point, node=node: backward_masks(node.start - first_point + point),  # type: ignore[misc]
        )
        for node in nodes
    ]
    adjacency = layout.adjacency([layout.node_box(numpy_of(sketches.points[node])) for node in nodes])
    weight1, weight2 = (numpy_of(weight) for weight in encoder.graph.parameters())
    return network.grid_convolution(weight1, weight2, np.stack(embeddings), adjacency)


def oracle_loss(model: SketchGloc, sketches: SketchBatch) -> tuple[float, float, np.ndarray]:
    """Compute the summed mixture loss, the summed pen loss and the codes with the oracle."""
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, LayoutEncoder)
    gathered = np.stack([oracle_gather(model, sketches, sketch) for sketch in range(len(sketches))])
    norm = encoder.batch_norm
    statistics = (numpy_of(norm.running_mean), numpy_of(norm.running_var))
    normed, _, _ = network.batch_norm(gathered, numpy_of(norm.weight), numpy_of(norm.bias), *statistics, model.training)
    mixture = pen = 0.0
    codes = []
    for sketch, points in enumerate(slices(sketches.sketch_point_offsets)):
        epsilon = None
        if model.training:
            columns = torch.arange(model.config.latent_size)
            epsilon = random.normal(random.fold(sketches.random_key[sketch], Purpose.LATENT), columns).double().numpy()
        mean, variance = encoder.mean, encoder.log_variance
        weights = (numpy_of(mean.weight), numpy_of(mean.bias), numpy_of(variance.weight), numpy_of(variance.bias))
        y, _, _ = network.latent(np.tanh(normed[sketch]), *weights, epsilon)
        codes.append(y)
        targets, lift = numpy_of(sketches.targets[points]), numpy_of(sketches.pen_lift[points])
        rows = [[x, y_, 1 - up, up, 0] for (x, y_), up in zip(targets, lift.astype(float), strict=True)] + [
            [0, 0, 0, 0, 1]
        ]
        stroke5 = np.array(rows, dtype=np.float64)
        state = network.initial_state(numpy_of(decoder.initial_state.weight), numpy_of(decoder.initial_state.bias), y)
        masks = masks_of(decoder.cell, model, sketches, sketch, Purpose.DECODER, len(stroke5))
        output = (numpy_of(decoder.output.weight), numpy_of(decoder.output.bias))
        raw = network.decode(
            model.config.decoder.cell, oracle_parameters(decoder.cell), *output, state, stroke5, y, masks
        )
        terms = network.sketch_loss(raw, stroke5, model.loss.density_floor)
        mixture, pen = mixture + terms[0], pen + terms[1]
    return mixture, pen, np.stack(codes)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_loss_and_codes_equal_the_oracle(name: CellName, training: bool, grad: bool) -> None:
    model, sketches = make_model(name, name), make_batch(STROKES)
    model.train(training)
    mixture, pen, codes = oracle_loss(model, sketches)
    with torch.set_grad_enabled(grad):
        losses = model(sketches)
    np.testing.assert_allclose(losses.mixture.item(), mixture, rtol=1e-9)
    np.testing.assert_allclose(losses.pen.item(), pen, rtol=1e-9)
    np.testing.assert_allclose(numpy_of(model.encode(sketches).y), codes, rtol=1e-9, atol=1e-12)


def test_dropout_of_a_hyper_cell_falls_on_the_main_candidate_alone_or_on_both() -> None:
    sketches = make_batch(STROKES)
    of_main, of_both = (make_model("hyper", "hyper", hyper_dropout=kind) for kind in ("main", "both"))
    for model in (of_main, of_both):
        mixture, pen, _ = oracle_loss(model, sketches)
        losses = model(sketches)
        np.testing.assert_allclose([losses.mixture.item(), losses.pen.item()], [mixture, pen], rtol=1e-9)
    assert of_main(sketches).total != of_both(sketches).total
    assert of_main.config.hyper_dropout == ModelConfig().hyper_dropout
    # The counters yield the same masks for the main candidate in both models.
    keys, steps = sketches.random_key, torch.arange(len(sketches))
    masks = [recurrent_masks(model.decoder.cell, keys, Purpose.DECODER, steps, KEEP) for model in (of_main, of_both)]
    assert torch.equal(masks[0], masks[1][:, : masks[0].shape[1]])


@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_the_whole_loss_in_float64(name: CellName) -> None:
    model, sketches = make_model(name, name, LossConfig(kl_weight=0.3)), make_batch([[2, 1], [3]])
    parameters = dict(model.named_parameters())

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, dict(zip(parameters, values, strict=True)), (sketches,)).total  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(loss, tuple(parameters.values()), atol=1e-5, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("name", CELLS)
def test_parts_and_checkpoints_change_nothing_but_memory(name: CellName) -> None:
    # The added sketch has more steps than the interval between checkpoints.
    sketches = make_batch([*STROKES, [30, 20]])
    results = []
    for num_parts, checkpoint_decoder in ((1, False), (2, False), (3, False), (5, False), (1, True), (2, True)):
        model = make_model(name, name)
        model.checkpoint_decoder = checkpoint_decoder
        losses = model(sketches, num_parts)
        losses.total.backward()
        running_mean = dict(model.named_buffers())["encoder.batch_norm.running_mean"]
        results.append((losses, [parameter.grad for parameter in model.parameters()], running_mean))
    for losses, gradients, running_mean in results[1:]:
        torch.testing.assert_close(losses, results[0][0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradients, results[0][1], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(running_mean, results[0][2], rtol=1e-12, atol=1e-12)


def test_checkpoints_save_memory() -> None:
    model, sketches = make_model("lstm", "hyper"), make_batch([[100], [120]])

    def num_saved(checkpoint_decoder: bool) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.checkpoint_decoder = checkpoint_decoder
            model(sketches)
        return sum(sizes.values())

    assert num_saved(True) < 0.6 * num_saved(False)


@pytest.mark.parametrize("name", CELLS)
def test_bfloat16_is_for_products_alone(name: CellName) -> None:
    model, sketches = make_model(name, name).float(), make_batch(STROKES, dtype=torch.float32)
    full = model(sketches)
    dtypes = {}
    for path, module in model.named_modules():
        module.register_forward_hook(lambda _module, _inputs, result, path=path: dtypes.update({path: result}))
    with torch.autocast("cpu", torch.bfloat16):
        short = model(sketches)
        code = model.encode(sketches)
    assert {dtypes["encoder.mean"].dtype, dtypes["decoder.output"].dtype} == {torch.bfloat16}
    assert {dtypes["encoder.batch_norm"].dtype, code.y.dtype, *(term.dtype for term in short)} == {torch.float32}
    assert short.total != full.total
    torch.testing.assert_close(short, full, rtol=0.1, atol=0.5)
    short.total.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_sketchs_loss_does_not_depend_on_its_neighbours_in_evaluation() -> None:
    model, sketches = make_model("hyper", "hyper").eval(), make_batch(STROKES)
    alone = [model(sketches.part(index, index + 1)).total for index in range(len(sketches))]
    torch.testing.assert_close(torch.stack(alone).sum(), model(sketches).total, rtol=1e-12, atol=1e-12)


def test_divergence_and_its_weight() -> None:
    sketches = make_batch(STROKES)
    model = make_model("lstm", "lstm", LossConfig(kl_weight=0.5)).eval()
    code, losses = model.encode(sketches), model(sketches)
    expected = sum(
        float(
            torch.distributions.kl_divergence(
                torch.distributions.Normal(mean, torch.exp(log_variance / 2)), torch.distributions.Normal(0.0, 1.0)
            ).detach()
        )
        for mean, log_variance in zip(code.mean.flatten(), code.log_variance.flatten(), strict=True)
    )
    np.testing.assert_allclose(losses.divergence.item(), expected)
    torch.testing.assert_close(losses.total, losses.mixture + losses.pen + 0.5 * losses.divergence)


def test_pen_loss_on_padding_counts_end_rows_up_to_the_longest_drawing_in_training_only() -> None:
    sketches, longest = make_batch(STROKES), 15
    model = make_model("lstm", "lstm", LossConfig(pen_loss_on_padding=True), longest)
    plain = make_model("lstm", "lstm")
    with torch.no_grad():
        assert torch.equal(model.eval()(sketches).pen, plain.eval()(sketches).pen)
        for part in (*model.modules(), *plain.modules()):
            if isinstance(part, Bidirectional | Decoder):
                part.keep = 1.0
        padded, unpadded = model.train()(sketches), plain.train()(sketches)
        torch.testing.assert_close(padded.mixture, unpadded.mixture, rtol=1e-12, atol=1e-12)
        # With all weights zero except an output bias, every end row costs the same.
        for parameter in model.decoder.parameters():
            parameter.zero_()
        model.decoder.output.bias[:3] = torch.tensor([0.0, 0.0, 2.0])
        num_points = sketches.sketch_point_offsets.diff()
        cost = -torch.log_softmax(model.decoder.output.bias[:3], 0)
        lifts = int(sketches.pen_lift.sum())
        num_end_rows = int((longest + 1 - num_points).sum())
        expected = lifts * cost[1] + (int(num_points.sum()) - lifts) * cost[0] + num_end_rows * cost[2]
        torch.testing.assert_close(model(sketches).pen, expected)


def test_published_sizes_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = SketchGloc(ModelConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 24_057_979


@pytest.mark.parametrize("floor", [1e-6, 0.5])
def test_density_floor_is_added_inside_the_logarithm(floor: float) -> None:
    model, sketches = make_model("lstm", "lstm", LossConfig(density_floor=floor)), make_batch(STROKES)
    for training in (True, False):
        mixture, _, _ = oracle_loss(model.train(training), sketches)
        np.testing.assert_allclose(model(sketches).mixture.item(), mixture, rtol=1e-9)


def test_density_floor_caps_a_point_and_its_gradient_stays_finite() -> None:
    raw = torch.zeros(3, 3 + 6 * 2, requires_grad=True)
    _, mixture = split_output(raw)
    cost = -mixture.log_density(torch.tensor([[0.1, 0.2], [50.0, 0.0], [1e15, -1e15]]), 1e-6)
    assert cost[1:].tolist() == pytest.approx([-math.log(1e-6)] * 2)
    assert cost[0] < 2.0
    cost.sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


def test_the_published_model_has_the_originals_variables() -> None:
    with torch.device("meta"):
        clipping = VariableClipping(SketchGloc(ModelConfig()), 1.0)
    assert clipping.num_variables == 63


def test_mixture_stays_finite_far_out() -> None:
    raw = torch.full((4, 3 + 6 * 2), 0.0, requires_grad=True)
    extreme = raw + torch.tensor([[300.0], [-300.0], [1e4], [-1e4]])
    pen, mixture = split_output(extreme)
    density = mixture.log_density(torch.tensor([[50.0, -50.0]] * 4))
    assert torch.isfinite(density).all()
    (density.sum() + torch.log_softmax(pen, 1).sum()).backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


def test_bfloat16_autocast_computes_loss_and_batch_norm_in_float32() -> None:
    model, sketches = make_model("hyper", "hyper").float(), make_batch(STROKES, dtype=torch.float32)
    exact = model.eval()(sketches)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(sketches)
        assert model.encode(sketches).y.dtype == torch.float32
    assert {term.dtype for term in losses} == {torch.float32}
    assert losses.total != exact.total
    torch.testing.assert_close(losses.total, exact.total, rtol=0.03, atol=0)


def test_nodes_shorter_than_strokes_change_the_layout() -> None:
    sketches = make_batch([[6]])
    halves = SketchBatch(
        **{
            **{name: getattr(sketches, name) for name in sketches.__dataclass_fields__},
            "node_offsets": torch.tensor([0, 3, 6]),
            "sketch_node_offsets": torch.tensor([0, 2]),
        }
    )
    model = make_model("lstm", "lstm").eval()
    adjacency = ops.grid_adjacency(ops.node_boxes(halves.points, halves.node_offsets), halves.sketch_node_offsets)
    assert adjacency.shape == (1, 2, 2)
    np.testing.assert_allclose(numpy_of(model.encoder.gather(halves)[0]), oracle_gather(model, halves, 0), rtol=1e-10)
