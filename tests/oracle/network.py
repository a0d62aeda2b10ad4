"""METHOD 5 to 7 and greedy drawing (METHOD 9), one sketch and one step at a time.

All values are float64. H is the number of encoder units, D = 2H, Z the latent width, m the number of mixture
components. A raw row of the decoder's output is [3 + 6m]: 3 pen logits, then m values each of the logits of pi, mu_x,
mu_y, log sigma_x, log sigma_y, and rho before its tanh.
"""

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from . import cells

FloatArray = npt.NDArray[np.float64]

BATCH_NORM_EPSILON = 1e-5
START_ROW = np.array([0.0, 0.0, 1.0, 0.0, 0.0])


def encode_node(
    cell: cells.Cell,
    forward_params: cells.Parameters,
    backward_params: cells.Parameters,
    points: FloatArray,
    forward_masks: cells.Masks,
    backward_masks: cells.Masks,
) -> FloatArray:
    """METHOD 5.1: a node's embedding, the last forward output ++ the first backward output.

    The first backward output is the output at the first point, after the backward cell has read the whole node.

    Args:
        cell: name of the cell.
        forward_params: parameters of the forward cell.
        backward_params: parameters of the backward cell.
        points: [n, 2], absolute (x, y), normalised units.
        forward_masks: function from a point's index to the forward cell's masks at that point.
        backward_masks: function from a point's index to the backward cell's masks at that point.

    Returns:
        [2H].
    """
    last_point = len(points) - 1
    forward_start = np.zeros(cells.state_size(cell, forward_params))
    backward_start = np.zeros(cells.state_size(cell, backward_params))
    forward, _ = cells.run(cell, forward_params, points, forward_start, forward_masks)
    backward, _ = cells.run(
        cell, backward_params, points[::-1], backward_start, lambda step: backward_masks(last_point - step)
    )
    return np.concatenate([forward[-1], backward[-1]])


def grid_convolution(
    weight1: FloatArray, weight2: FloatArray, embeddings: FloatArray, adjacency: list[list[int]]
) -> FloatArray:
    """METHOD 5.2 and 5.3, for one sketch.

    Args:
        weight1: [9, D, D], W1_k, each [inputs, outputs].
        weight2: [9, D, D], W2_k, each [inputs, outputs].
        embeddings: [n, D].
        adjacency: n lists of n; bit k of entry [i][j] is A_k[i, j].

    Returns:
        g, [D].
    """
    num_nodes, width = embeddings.shape
    g = np.zeros(width)
    for i in range(num_nodes):
        for k in range(9):
            h0 = np.zeros(width)
            for j in range(num_nodes):
                if adjacency[i][j] >> k & 1:
                    h0 = h0 + embeddings[j]
            h1 = np.maximum(h0 @ weight1[k], 0.0)
            h2 = np.maximum(h1 @ weight2[k], 0.0)
            g = g + (h0 + h2) / 2.0
    return g


def batch_norm(
    g: FloatArray,
    weight: FloatArray,
    bias: FloatArray,
    running_mean: FloatArray,
    running_variance: FloatArray,
    training: bool,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """METHOD 5.4 without its tanh, over the global batch.

    Args:
        g: [B, D], B >= 2 in training.
        weight: [D].
        bias: [D].
        running_mean: [D].
        running_variance: [D].
        training: whether to use the batch's statistics and update the running ones.

    Returns:
        The normalised batch [B, D], and the updated running mean [D] and running variance [D].
    """
    num_sketches, width = g.shape
    normed = np.zeros((num_sketches, width))
    new_mean, new_variance = np.array(running_mean), np.array(running_variance)
    for feature in range(width):
        mean, variance = running_mean[feature], running_variance[feature]
        if training:
            mean = sum(g[:, feature]) / num_sketches
            sum_of_squares = sum((value - mean) ** 2 for value in g[:, feature])
            variance = sum_of_squares / num_sketches
            unbiased_variance = sum_of_squares / (num_sketches - 1)
            new_mean[feature] = 0.9 * running_mean[feature] + 0.1 * mean
            new_variance[feature] = 0.9 * running_variance[feature] + 0.1 * unbiased_variance
        for sketch in range(num_sketches):
            deviation = (g[sketch, feature] - mean) / np.sqrt(variance + BATCH_NORM_EPSILON)
            normed[sketch, feature] = deviation * weight[feature] + bias[feature]
    return normed, new_mean, new_variance


def latent(
    c: FloatArray,
    mean_weight: FloatArray,
    mean_bias: FloatArray,
    log_variance_weight: FloatArray,
    log_variance_bias: FloatArray,
    epsilon: FloatArray | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """METHOD 5.5: the latent code.

    Args:
        c: [D], tanh of a row of the `batch_norm` output.
        mean_weight: [Z, D], W_mu.
        mean_bias: [Z].
        log_variance_weight: [Z, D], W_s.
        log_variance_bias: [Z].
        epsilon: [Z], eps in training; None otherwise.

    Returns:
        (y, mu, logvar), each [Z].
    """
    mu = mean_weight @ c + mean_bias
    logvar = log_variance_weight @ c + log_variance_bias
    y = mu if epsilon is None else mu + np.exp(logvar / 2.0) * epsilon
    return y, mu, logvar


def initial_state(weight: FloatArray, bias: FloatArray, y: FloatArray) -> FloatArray:
    """METHOD 6: State0 = tanh(W y + b).

    Args:
        weight: [state size, Z].
        bias: [state size].
        y: [Z].

    Returns:
        [state size], laid out as in `cells.run`.
    """
    return np.tanh(weight @ y + bias)


def decode(
    cell: cells.Cell,
    params: cells.Parameters,
    output_weight: FloatArray,
    output_bias: FloatArray,
    state: FloatArray,
    targets: FloatArray,
    y: FloatArray,
    masks: cells.Masks,
) -> FloatArray:
    """METHOD 6: at step t the decoder reads (row_{t-1}, y), where row_{-1} is the start row.

    Args:
        cell: name of the cell.
        params: parameters of the cell, with I = 5 + Z.
        output_weight: [3 + 6m, H].
        output_bias: [3 + 6m].
        state: [state size], from `initial_state`.
        targets: [T, 5], stroke-5 rows.
        y: [Z].
        masks: function from a step to the cell's masks, as in `cells.run`.

    Returns:
        Raw rows, [T, 3 + 6m].
    """
    inputs = []
    for t in range(len(targets)):
        previous_row = START_ROW if t == 0 else targets[t - 1]
        inputs.append(np.concatenate([previous_row, y]))
    outputs, _ = cells.run(cell, params, np.array(inputs), state, masks)
    return np.array([output_weight @ h + output_bias for h in outputs])


def _log_sum_exp(values: Iterable[float]) -> float:
    """Compute log(sum of exp), factoring out the largest term to avoid overflow."""
    listed = [float(value) for value in values]
    largest = max(listed)
    return largest + math.log(sum(math.exp(value - largest) for value in listed))


def mixture_negative_log_likelihood(raw: FloatArray, x: float, y: float, floor: float = 0.0) -> float:
    """METHOD 7 and 8: -log (sum_m pi_m N2(x, y | m) + floor).

    Args:
        raw: [3 + 6m]; |rho before tanh| must be below about 15, because 1 - rho^2 is computed literally.
        x: x coordinate, absolute and normalised.
        y: y coordinate, absolute and normalised.
        floor: `density_floor`.

    Returns:
        The loss term, in nats.
    """
    pi, mu_x, mu_y, log_sigma_x, log_sigma_y, raw_rho = np.split(raw[3:], 6)
    log_terms = []
    for m in range(len(pi)):
        log_pi = float(pi[m]) - _log_sum_exp(pi)
        sigma_x, sigma_y, rho = math.exp(log_sigma_x[m]), math.exp(log_sigma_y[m]), math.tanh(raw_rho[m])
        dx, dy = (x - float(mu_x[m])) / sigma_x, (y - float(mu_y[m])) / sigma_y
        exponent = -(dx**2 + dy**2 - 2.0 * rho * dx * dy) / (2.0 * (1.0 - rho**2))
        log_normaliser = math.log(2.0 * math.pi * sigma_x * sigma_y * math.sqrt(1.0 - rho**2))
        log_terms.append(log_pi + exponent - log_normaliser)
    log_density = _log_sum_exp(log_terms)
    return -log_density if floor == 0.0 else -math.log(math.exp(log_density) + floor)


def pen_cross_entropy(raw: FloatArray, pen: int) -> float:
    """METHOD 7: cross entropy of the pen state.

    Args:
        raw: [3 + 6m].
        pen: the target, 0 for p1, 1 for p2, 2 for p3.

    Returns:
        The loss term, in nats.
    """
    return _log_sum_exp(raw[:3]) - float(raw[pen])


def sketch_loss(raw: FloatArray, targets: FloatArray, floor: float = 0.0) -> tuple[float, float]:
    """METHOD 7, for one sketch; rows after the first end row are padding and do not count.

    Args:
        raw: [T, 3 + 6m].
        targets: [T, 5], stroke-5 rows.
        floor: `density_floor`.

    Returns:
        The mixture terms summed over the real steps, and the pen terms summed up to and including the first end row,
        in nats.
    """
    mixture_sum, pen_sum = 0.0, 0.0
    for row, (x, y, p1, p2, p3) in zip(raw, targets, strict=True):
        pen_sum += pen_cross_entropy(row, [p1, p2, p3].index(1.0))
        if p3 == 1.0:
            break
        mixture_sum += mixture_negative_log_likelihood(row, float(x), float(y), floor)
    return mixture_sum, pen_sum


def greedy_step(raw: FloatArray) -> FloatArray:
    """METHOD 9, greedy: the mean of the likeliest component and the likeliest pen state; on ties, the first.

    Args:
        raw: [3 + 6m].

    Returns:
        A stroke-5 row, [5].
    """
    pi, mu_x, mu_y, _, _, _ = np.split(raw[3:], 6)
    likeliest = int(np.argmax(pi))
    row = np.zeros(5)
    row[0], row[1] = mu_x[likeliest], mu_y[likeliest]
    row[2 + int(np.argmax(raw[:3]))] = 1.0
    return row
