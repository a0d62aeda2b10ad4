"""The oracle's cells and network against cases computed by hand from METHOD 5 to 7 and 9."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from . import cells, network

FloatArray = npt.NDArray[np.float64]

ATANH_HALF = 0.5 * math.log(3.0)  # its tanh is 1/2
KEEP_ONE = np.ones(1)


def logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))


def array(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float64)


# Cells (METHOD 6)


def test_lstm_step_by_hand() -> None:
    # Unit 0: i = 3/4, tanh j = 1/2, f = 4/5, o = 9/10. Unit 1: i = 1/2, tanh j = -1/2, f = 1/4, o = 1/5.
    pre_gates = array(
        logit(0.75), 0.0, ATANH_HALF, -ATANH_HALF, logit(0.8) - 1.0, logit(0.25) - 1.0, logit(0.9), logit(0.2)
    )
    params = {
        "weight_input": np.stack([0.5 * pre_gates, np.ones(8)]),
        "weight_hidden": np.stack([0.25 * pre_gates, -np.ones(8)]),
        "bias": -0.5 * pre_gates,
    }
    # x contributes 2/2 + 3, h contributes 2/4 - 3 and the bias -1/2, which gives the pre-activations above.
    c, h = cells.lstm(params, array(2.0, 3.0), array(1.0, 2.0), array(2.0, 3.0), array(2.0, 0.0))
    expected_c = array(0.8 * 1.0 + 0.75 * 0.5 * 2.0, 0.25 * 2.0)
    np.testing.assert_allclose(c, expected_c)
    np.testing.assert_allclose(h, np.tanh(expected_c) * array(0.9, 0.2))


def test_layer_norm_uses_the_biased_variance_and_its_epsilon() -> None:
    # The mean is 2, the deviations are -1 and 1, the biased variance is 1.
    deviation = 1.0 / math.sqrt(1.001)
    normed = cells.layer_norm(array(1.0, 3.0), array(2.0, 5.0), array(0.0, 1.0))
    np.testing.assert_allclose(normed, [-2.0 * deviation, 5.0 * deviation + 1.0], rtol=1e-12)


def test_layer_norm_lstm_step_by_hand() -> None:
    # In each gate, the pre-activations are +-3 around a different mean; normalisation gives +-n and the gains undo n.
    n = 3.0 / math.sqrt(9.001)
    params = {
        "weight_input": array(7.0, 1.0, -1.0, 5.0, 4.0, -2.0, 0.0, 6.0).reshape(1, 8),
        "weight_hidden": np.zeros((2, 8)),
        "gate_gain": array(1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0) / n,
        "gate_bias": array(0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0),
        "cell_gain": array(1.0, 2.0),
        "cell_bias": array(0.0, 0.25),
    }
    params["weight_hidden"][0] = params["weight_input"][0]
    params["weight_input"] = 2.0 * params["weight_input"]
    # x = 1 and h_0 = -1: 2 - 1 = 1 times the row above.
    h, c = cells.layer_norm_lstm(params, array(1.0), array(-1.0, 5.0), array(0.3, -0.4), array(1.0, 2.0))
    s = cells.sigmoid(array(1.0, -1.0, 4.0, -2.0, -4.0, 4.0))
    expected_c = array(s[2] * 0.3 + s[0] * math.tanh(-1.5), s[3] * -0.4 + s[1] * math.tanh(2.5) * 2.0)
    half = (expected_c[0] - expected_c[1]) / 2.0
    normed = half / math.sqrt(half**2 + 1e-3)
    np.testing.assert_allclose(c, expected_c, rtol=1e-12)
    np.testing.assert_allclose(h, [math.tanh(normed) * s[4], math.tanh(-2.0 * normed + 0.25) * s[5]], rtol=1e-12)


def hyper_params() -> dict[str, FloatArray]:
    """I = 1, H = 2, A = 1, E = 1; the inner h' is 0.45 for any input: a single unit always normalises to 0."""
    return {
        "hyper.weight_input": np.ones((3, 4)),
        "hyper.weight_hidden": np.ones((1, 4)),
        "hyper.gate_gain": np.ones(4),
        "hyper.gate_bias": array(0.0, ATANH_HALF, -1.0, logit(0.9)),
        "hyper.cell_gain": np.ones(1),
        "hyper.cell_bias": array(ATANH_HALF),
        "weight_input": array(1.0, 2.0, 3.0, 5.0, 8.0, 7.0, 6.0, 4.0).reshape(1, 8),
        "weight_hidden": np.stack([array(2.0, 0.0, 1.0, 1.0, 0.0, 3.0, 1.0, 2.0), np.zeros(8)]),
        "bias": np.linspace(-0.4, 0.3, 8),
        "gate_gain": np.full(8, 0.5),
        "gate_bias": np.zeros(8),
        "cell_gain": np.ones(2),
        "cell_bias": np.zeros(2),
        "scale_down_weight": np.arange(8.0).reshape(1, 8),
        "scale_down_bias": np.linspace(1.0, -0.4, 8),
        "scale_up": np.stack([array(1.0 + k, 1.0 - k).reshape(1, 2) for k in range(8)]),
        "shift_down": array(1.0, -2.0, 3.0, -4.0).reshape(1, 4),
        "shift_up": np.stack([array(1.0, 2.0 * k).reshape(1, 2) for k in range(4)]),
    }


def test_hyper_lstm_step_by_hand() -> None:
    params = hyper_params()
    old_c, mask = array(0.3, -0.2), array(1.0, 2.0)
    h, hyper_h, c, hyper_c = cells.hyper_lstm(
        params, array(2.0), array(3.0, 1.0), array(0.1), old_c, array(0.6), mask, array(2.0)
    )
    # Inner cell: f = 1/2, i = 1/2, tanh j = 1/2; the mask doubles the candidate.
    np.testing.assert_allclose(hyper_c, [0.5 * 0.6 + 0.5 * 0.5 * 2.0])
    np.testing.assert_allclose(hyper_h, [0.45])

    normed = np.zeros((4, 2))
    for gate in range(4):
        pre_gate = np.zeros(2)
        for unit in range(2):
            signed = 1.0 if unit == 0 else -1.0
            alpha_input = (0.45 * gate + 1.0 - 0.2 * gate) * (1.0 + signed * gate)
            alpha_hidden = (0.45 * (gate + 4) + 1.0 - 0.2 * (gate + 4)) * (1.0 + signed * (gate + 4))
            beta = 0.45 * [1.0, -2.0, 3.0, -4.0][gate] * (1.0 if unit == 0 else 2.0 * gate)
            x_part = 2.0 * [1.0, 2.0, 3.0, 5.0, 8.0, 7.0, 6.0, 4.0][2 * gate + unit]
            h_part = 3.0 * [2.0, 0.0, 1.0, 1.0, 0.0, 3.0, 1.0, 2.0][2 * gate + unit]
            bias = -0.4 + 0.1 * (2 * gate + unit)
            pre_gate[unit] = alpha_input * x_part + alpha_hidden * h_part + beta + bias
        half = (pre_gate[0] - pre_gate[1]) / 2.0
        normed[gate] = array(0.5, -0.5) * half / math.sqrt(half**2 + 1e-3)
    # Because of the epsilon, the size of each half affects the digits that are compared.
    i, j, f, o = normed
    expected_c = old_c / (1.0 + np.exp(-f - 1.0)) + np.tanh(j) * mask / (1.0 + np.exp(-i))
    half = (expected_c[0] - expected_c[1]) / 2.0
    np.testing.assert_allclose(c, expected_c, rtol=1e-12)
    np.testing.assert_allclose(
        h, np.tanh(array(half, -half) / math.sqrt(half**2 + 1e-3)) / (1.0 + np.exp(-o)), rtol=1e-12
    )


def initial_hyper_params() -> dict[str, FloatArray]:
    """I = 2, H = 3, A = 2, E = 4; initial values for the scales and shifts, random values for the rest."""
    generator = np.random.default_rng(0)
    width, num_units, num_hyper, num_inputs = 4, 3, 2, 2
    return {
        "weight_input": generator.normal(size=(num_inputs, 4 * num_units)),
        "weight_hidden": generator.normal(size=(num_units, 4 * num_units)),
        "bias": np.zeros(4 * num_units),
        "gate_gain": generator.normal(size=4 * num_units),
        "gate_bias": generator.normal(size=4 * num_units),
        "cell_gain": generator.normal(size=num_units),
        "cell_bias": generator.normal(size=num_units),
        "scale_down_weight": np.zeros((num_hyper, 8 * width)),
        "scale_down_bias": np.ones(8 * width),
        "scale_up": np.full((8, width, num_units), 0.1 / width),
        "shift_down": generator.normal(size=(num_hyper, 4 * width)),
        "shift_up": np.zeros((4, width, num_units)),
        "hyper.weight_input": generator.normal(size=(num_inputs + num_units, 4 * num_hyper)),
        "hyper.weight_hidden": generator.normal(size=(num_hyper, 4 * num_hyper)),
        "hyper.gate_gain": generator.normal(size=4 * num_hyper),
        "hyper.gate_bias": generator.normal(size=4 * num_hyper),
        "hyper.cell_gain": generator.normal(size=num_hyper),
        "hyper.cell_bias": generator.normal(size=num_hyper),
    }


def test_hyper_lstm_at_its_initial_scales_is_two_layer_norm_lstms() -> None:
    params = initial_hyper_params()
    generator = np.random.default_rng(1)
    inputs = generator.normal(size=(5, 2))
    h, hyper_h, c, hyper_c = (generator.normal(size=size) for size in (3, 2, 3, 2))
    masks = (array(1.0, 0.0, 2.0), array(1.0, 0.5))
    outputs, state = cells.run("hyper", params, inputs, np.concatenate([h, hyper_h, c, hyper_c]), lambda _: masks)

    # alpha = 0.1 for every gate: the outer cell equals a layer norm LSTM with weights scaled by 0.1.
    tenth = params | {name: 0.1 * params[name] for name in ("weight_input", "weight_hidden")}
    expected, last = cells.run("layer_norm", tenth, inputs, np.concatenate([h, c]), lambda _: masks[:1])
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    np.testing.assert_allclose([state[:3], state[5:8]], [last[:3], last[3:]], rtol=1e-12)

    # The inner cell reads x and the outer h of the previous step.
    inner = {name[len("hyper.") :]: value for name, value in params.items() if name.startswith("hyper.")}
    read = np.hstack([inputs, np.vstack([h, outputs[:-1]])])
    _, last = cells.run("layer_norm", inner, read, np.concatenate([hyper_h, hyper_c]), lambda _: masks[1:])
    np.testing.assert_allclose([state[3:5], state[8:]], [last[:2], last[2:]], rtol=1e-12)


def summing_lstm(input_weights: FloatArray) -> dict[str, FloatArray]:
    """One unit with all three gates open: c is the running sum of tanh(x . input_weights) * mask."""
    weight_input = np.zeros((len(input_weights), 4))
    weight_input[:, 1] = input_weights
    return {"weight_input": weight_input, "weight_hidden": np.zeros((1, 4)), "bias": array(99.0, 0.0, 99.0, 99.0)}


def test_run_carries_the_state_and_asks_for_each_steps_mask() -> None:
    outputs, state = cells.run(
        "lstm", summing_lstm(array(1.0)), np.full((3, 1), ATANH_HALF), array(0.25, 7.0), lambda t: (array(float(t)),)
    )
    # c comes before h in the state; it starts at 0.25 and grows by 0, 1/2 and 1.
    np.testing.assert_allclose(outputs, np.tanh([[0.25], [0.75], [1.75]]))
    np.testing.assert_allclose(state, [1.75, math.tanh(1.75)])


# Network (METHOD 5 to 7) and greedy drawing (METHOD 9)


def test_encode_node_reads_the_whole_node_both_ways() -> None:
    points = np.array([[ATANH_HALF, 0.0], [0.0, -ATANH_HALF], [-ATANH_HALF, ATANH_HALF]])
    # The forward cell sums x with masks 1, 2, 4; the backward cell sums y with masks 0.01, 0.1, 1 (points 0, 1, 2).
    embedding = network.encode_node(
        "lstm",
        summing_lstm(array(1.0, 0.0)),
        summing_lstm(array(0.0, 1.0)),
        points,
        lambda point: (array(2.0**point),),
        lambda point: (array(0.01 * 10.0**point),),
    )
    np.testing.assert_allclose(embedding, np.tanh([0.5 * 1.0 - 0.5 * 4.0, -0.5 * 0.1 + 0.5 * 1.0]))


def test_encode_node_reads_backwards_from_the_last_point() -> None:
    # With a closed forget gate, the output depends only on the last point read.
    forgetful = summing_lstm(array(1.0)) | {"bias": array(99.0, 0.0, -99.0, 99.0)}
    points = np.array([[ATANH_HALF], [0.0], [-ATANH_HALF]])
    embedding = network.encode_node("lstm", forgetful, forgetful, points, lambda _: (KEEP_ONE,), lambda _: (KEEP_ONE,))
    np.testing.assert_allclose(embedding, np.tanh([-0.5, 0.5]))


def test_encode_node_of_one_point_is_one_step_from_zero() -> None:
    params, point = initial_hyper_params(), array(0.4, -0.7)
    masks = (array(1.0, 0.0, 2.0), array(1.0, 0.5))
    h, _, _, _ = cells.hyper_lstm(params, point, np.zeros(3), np.zeros(2), np.zeros(3), np.zeros(2), *masks)
    embedding = network.encode_node("hyper", params, params, point.reshape(1, 2), lambda _: masks, lambda _: masks)
    np.testing.assert_allclose(embedding, np.concatenate([h, h]))


def test_grid_convolution_by_hand() -> None:
    weight1, weight2 = np.zeros((9, 2, 2)), np.zeros((9, 2, 2))
    weight1[4] = [[1.0, -1.0], [0.0, 2.0]]
    weight2[4] = [[1.0, 0.0], [3.0, -1.0]]
    weight1[1] = [[2.0, 0.0], [0.0, 0.0]]
    weight2[1] = [[0.0, 5.0], [0.0, 0.0]]
    embeddings = np.array([[1.0, 2.0], [-3.0, 1.0]])
    adjacency = [[1 << 4, (1 << 1) + (1 << 8)], [(1 << 4) + (1 << 1), 1 << 4]]
    # Node 0, k = 4: h0 = (1, 2), h1 = (1, 3), h2 = relu(10, -3) = (10, 0).
    # Node 0, k = 1 and k = 8: h0 = (-3, 1), h1 = 0, twice.
    # Node 1, k = 4: h0 = (-2, 3), h1 = relu(-2, 8) = (0, 8), h2 = relu(24, -8) = (24, 0).
    # Node 1, k = 1: h0 = (1, 2), h1 = (2, 0), h2 = (0, 10).
    h0_sum = array(1.0 - 3.0 - 3.0 - 2.0 + 1.0, 2.0 + 1.0 + 1.0 + 3.0 + 2.0)
    h2_sum = array(34.0, 10.0)
    g = network.grid_convolution(weight1, weight2, embeddings, adjacency)
    np.testing.assert_allclose(g, (h0_sum + h2_sum) / 2.0)


def test_batch_norm_by_hand() -> None:
    g = np.array([[0.0], [2.0], [4.0]])
    statistics = (array(10.0), array(3.0))
    normed, mean, variance = network.batch_norm(g, array(3.0), array(0.5), *statistics, training=True)
    # The mean is 2, the biased variance 8/3, the unbiased variance 4.
    step = 3.0 * 2.0 / math.sqrt(8.0 / 3.0 + 1e-5)
    np.testing.assert_allclose(normed, [[0.5 - step], [0.5], [0.5 + step]], rtol=1e-12)
    np.testing.assert_allclose([mean, variance], [[9.2], [3.1]], rtol=1e-12)

    normed, mean, variance = network.batch_norm(g, array(3.0), array(0.5), *statistics, training=False)
    np.testing.assert_allclose(normed, 3.0 * (g - 10.0) / math.sqrt(3.00001) + 0.5, rtol=1e-12)
    assert (mean.tolist(), variance.tolist()) == ([10.0], [3.0])


def test_latent_by_hand() -> None:
    weights = (np.array([[1.0, 2.0]]), array(0.5), np.array([[0.0, math.log(4.0)]]), array(math.log(9.0)))
    y, mu, logvar = network.latent(array(3.0, 2.0), *weights, array(0.1))
    # logvar = log 16 + log 9, so the standard deviation is 12.
    np.testing.assert_allclose([y, mu, logvar], [[8.7], [7.5], [math.log(144.0)]])
    assert network.latent(array(3.0, 2.0), *weights, None)[0] == mu


def test_decode_reads_the_row_before_and_the_latent_at_every_step() -> None:
    state = network.initial_state(np.array([[2.0], [0.0]]), array(0.5 * math.log(3.0) - 2.0, 0.0), array(1.0))
    np.testing.assert_allclose(state, [0.5, 0.0])
    targets = np.array([[ATANH_HALF, 7.0, 0.0, 1.0, 0.0], [9.0, 9.0, 0.0, 0.0, 1.0]])
    # The cell sums tanh(x + p1 - y_0); the argument is 1 - y_0 at the start row, and atanh(1/2) - y_0 at the first row.
    params = summing_lstm(array(1.0, 0.0, 1.0, 0.0, 0.0, -1.0))
    raw = network.decode(
        "lstm", params, np.array([[2.0], [0.0]]), array(0.0, 3.0), state, targets, array(1.0), lambda _: (KEEP_ONE,)
    )
    first = math.tanh(0.5)
    second = math.tanh(0.5 + math.tanh(ATANH_HALF - 1.0))
    np.testing.assert_allclose(raw, [[2.0 * first, 3.0], [2.0 * second, 3.0]])


# Two components with pi 1/4 and 3/4, different standard deviations and correlations of opposite sign.
RAW = array(
    *(0.0, math.log(2.0), math.log(5.0)),
    *(1.0, 1.0 + math.log(3.0)),
    *(0.0, 1.0),
    *(0.5, -1.0),
    *(math.log(0.5), math.log(0.8)),
    *(math.log(0.7), math.log(0.4)),
    *(ATANH_HALF, -2.0 * ATANH_HALF),
)


def test_mixture_density_integrates_to_one_and_has_its_moments() -> None:
    step = 0.1
    mass, mean_x, product = 0.0, 0.0, 0.0
    for x in np.arange(-5.0, 6.0, step):
        for y in np.arange(-5.0, 5.0, step):
            weight = math.exp(-network.mixture_negative_log_likelihood(RAW, float(x), float(y))) * step**2
            mass, mean_x, product = mass + weight, mean_x + weight * x, product + weight * x * y
    rho = math.tanh(-2.0 * ATANH_HALF)
    assert mass == pytest.approx(1.0, abs=1e-6)
    assert mean_x == pytest.approx(0.75, abs=1e-6)
    # E[xy] = sum of pi (mu_x mu_y + rho sigma_x sigma_y).
    assert product == pytest.approx(0.25 * 0.5 * 0.5 * 0.7 + 0.75 * (-1.0 + rho * 0.8 * 0.4), abs=1e-6)


def test_mixture_of_one_uncorrelated_component_by_hand() -> None:
    raw = array(0.0, 0.0, 0.0, 5.0, 1.0, -1.0, math.log(2.0), math.log(3.0), 0.0)
    # The point is one sigma from the mean in x and two in y.
    expected = 0.5 + 2.0 + math.log(2.0 * math.pi * 2.0 * 3.0)
    assert network.mixture_negative_log_likelihood(raw, 3.0, 5.0) == pytest.approx(expected)


def test_pen_cross_entropy_by_hand() -> None:
    terms = [network.pen_cross_entropy(RAW, pen) for pen in range(3)]
    assert terms == pytest.approx([math.log(8.0), math.log(4.0), math.log(8.0 / 5.0)])


def test_sketch_loss_counts_the_end_row_for_the_pen_alone_and_padding_for_nothing() -> None:
    targets = np.array([[0.1, 0.2, 1, 0, 0], [0.3, 0.4, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]])
    mixture, pen = network.sketch_loss(np.stack([RAW] * 4), targets)
    expected = [network.mixture_negative_log_likelihood(RAW, x, y) for x, y in ((0.1, 0.2), (0.3, 0.4))]
    assert mixture == pytest.approx(sum(expected))
    assert pen == pytest.approx(math.log(8.0) + math.log(4.0) + math.log(8.0 / 5.0))


def test_greedy_step_takes_the_likeliest_mean_and_pen() -> None:
    assert network.greedy_step(RAW).tolist() == [1.0, -1.0, 0.0, 0.0, 1.0]
