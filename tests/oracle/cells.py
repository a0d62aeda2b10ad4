"""The three recurrent cells of METHOD 5.1 and 6, one vector and one step at a time.

Throughout, H is the number of units, A the number of units of a hyper cell's inner cell, I the number of inputs, and E
the width of a hyper embedding. All values are float64 and matrices are [inputs, outputs]. The gates come in the order
i, j, f, o, each a block of H columns; 1 is added to f inside its sigmoid. Masks are those of recurrent dropout: float64
[H], 0 or 1 / keep, multiplied into the candidate tanh(j).
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Parameters = Mapping[str, FloatArray]
Cell = Literal["lstm", "layer_norm", "hyper"]
Masks = Callable[[int], tuple[FloatArray, ...]]

FORGET_BIAS = 1.0
LAYER_NORM_EPSILON = 1e-3


def sigmoid(values: FloatArray) -> FloatArray:
    """Compute 1 / (1 + exp(-v)) elementwise, [n] -> [n]."""
    return np.array([1.0 / (1.0 + np.exp(-value)) for value in values])


def layer_norm(values: FloatArray, gain: FloatArray, bias: FloatArray) -> FloatArray:
    """METHOD 6: normalise n values by their mean and biased variance; all arrays are [n]."""
    mean = float(sum(values)) / len(values)
    variance = float(sum((value - mean) ** 2 for value in values)) / len(values)
    return gain * (values - mean) / math.sqrt(variance + LAYER_NORM_EPSILON) + bias


def _gates(values: FloatArray) -> list[FloatArray]:
    """Split [4 n] into the four blocks i, j, f, o, each [n]."""
    size = len(values) // 4
    return [values[0:size], values[size : 2 * size], values[2 * size : 3 * size], values[3 * size : 4 * size]]


def _normed_update(
    params: Parameters, pre_gates: list[FloatArray], c: FloatArray, mask: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """METHOD 6: update (h, c) from the four pre-activations, with layer norm per gate and on c before the output tanh.

    Args:
        params: gate_gain [4H], gate_bias [4H], cell_gain [H], cell_bias [H].
        pre_gates: pre-activations of i, j, f, o, each [H].
        c: [H].
        mask: [H].

    Returns:
        The new (h, c), each [H].
    """
    gains, biases = _gates(params["gate_gain"]), _gates(params["gate_bias"])
    i, j, f, o = [layer_norm(pre_gates[gate], gains[gate], biases[gate]) for gate in range(4)]
    # The state keeps the unnormalised c; only the input of the output tanh is normalised.
    new_c = c * sigmoid(f + FORGET_BIAS) + sigmoid(i) * np.tanh(j) * mask
    new_h = np.tanh(layer_norm(new_c, params["cell_gain"], params["cell_bias"])) * sigmoid(o)
    return new_h, new_c


def lstm(
    params: Parameters, x: FloatArray, c: FloatArray, h: FloatArray, mask: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """METHOD 6, `lstm`.

    Args:
        params: weight_input [I, 4H], weight_hidden [H, 4H], bias [4H].
        x: [I].
        c: [H].
        h: [H].
        mask: [H].

    Returns:
        The new (c, h), each [H].
    """
    i, j, f, o = _gates(x @ params["weight_input"] + h @ params["weight_hidden"] + params["bias"])
    new_c = c * sigmoid(f + FORGET_BIAS) + sigmoid(i) * np.tanh(j) * mask
    new_h = np.tanh(new_c) * sigmoid(o)
    return new_c, new_h


def layer_norm_lstm(
    params: Parameters, x: FloatArray, h: FloatArray, c: FloatArray, mask: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """METHOD 6, `layer_norm`: no bias on the gates; layer norm per gate, and on c before the output tanh.

    Args:
        params: weight_input [I, 4H], weight_hidden [H, 4H], gate_gain [4H], gate_bias [4H], cell_gain [H],
            cell_bias [H].
        x: [I].
        h: [H].
        c: [H].
        mask: [H].

    Returns:
        The new (h, c), each [H].
    """
    return _normed_update(params, _gates(x @ params["weight_input"] + h @ params["weight_hidden"]), c, mask)


def hyper_lstm(
    params: Parameters,
    x: FloatArray,
    h: FloatArray,
    hyper_h: FloatArray,
    c: FloatArray,
    hyper_c: FloatArray,
    mask: FloatArray,
    hyper_mask: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """METHOD 6, `hyper`: the inner cell steps first; its new h' scales and shifts the outer cell's gates.

    Args:
        params: weight_input [I, 4H], weight_hidden [H, 4H], bias [4H], gate_gain [4H], gate_bias [4H], cell_gain [H],
            cell_bias [H]; scale_down_weight [A, 8E], scale_down_bias [8E], scale_up [8, E, H] (the 8 blocks: i, j, f, o
            of the input, then i, j, f, o of the recurrence); shift_down [A, 4E], shift_up [4, E, H] (i, j, f, o of the
            recurrence); and, prefixed with "hyper.", the parameters of a `layer_norm_lstm` with A units and I + H
            inputs.
        x: [I].
        h: [H].
        hyper_h: [A].
        c: [H].
        hyper_c: [A].
        mask: [H].
        hyper_mask: [A]; ones if recurrent dropout applies to the main candidate only.

    Returns:
        The new (h, hyper_h, c, hyper_c), with the shapes of the inputs.
    """
    inner = {name.removeprefix("hyper."): value for name, value in params.items() if name.startswith("hyper.")}
    new_hyper_h, new_hyper_c = layer_norm_lstm(inner, np.concatenate([x, h]), hyper_h, hyper_c, hyper_mask)

    scale_up, shift_up = params["scale_up"], params["shift_up"]
    width = scale_up.shape[1]
    scale_embedding = new_hyper_h @ params["scale_down_weight"] + params["scale_down_bias"]
    shift_embedding = new_hyper_h @ params["shift_down"]
    alpha = [scale_embedding[k * width : (k + 1) * width] @ scale_up[k] for k in range(8)]
    beta = [shift_embedding[k * width : (k + 1) * width] @ shift_up[k] for k in range(4)]

    from_input = _gates(x @ params["weight_input"])
    from_hidden = _gates(h @ params["weight_hidden"])
    bias = _gates(params["bias"])
    pre_gates = []
    for gate in range(4):
        scaled = alpha[gate] * from_input[gate] + alpha[4 + gate] * from_hidden[gate]
        pre_gates.append(scaled + beta[gate] + bias[gate])
    new_h, new_c = _normed_update(params, pre_gates, c, mask)
    return new_h, new_hyper_h, new_c, new_hyper_c


def state_size(cell: Cell, params: Parameters) -> int:
    """METHOD 6: the total size of the cell's state: 2H, or 2(H + A) for `hyper`."""
    size = 2 * len(params["weight_hidden"])
    if cell == "hyper":
        size += 2 * len(params["hyper.weight_hidden"])
    return size


def run(
    cell: Cell, params: Parameters, inputs: FloatArray, state: FloatArray, masks: Masks
) -> tuple[FloatArray, FloatArray]:
    """Run a cell over a sequence.

    Args:
        cell: name of the cell.
        params: parameters of the cell.
        inputs: [T, I].
        state: initial state [state size], concatenated in the order (c, h) for lstm, (h, c) for layer_norm and
            (h, hyper_h, c, hyper_c) for hyper.
        masks: function from a step, counted from 0, to its masks: (mask,); for `hyper` also (mask, hyper_mask), which
            drops the inner cell's candidate as well.

    Returns:
        The outputs h, [T, H], and the state after the last step, laid out like `state`.
    """
    num_units = len(params["weight_hidden"])
    outputs = np.zeros((len(inputs), num_units))
    for t, x in enumerate(inputs):
        if cell == "lstm":
            (mask,) = masks(t)
            c, h = lstm(params, x, state[:num_units], state[num_units:], mask)
            state = np.concatenate([c, h])
        elif cell == "layer_norm":
            (mask,) = masks(t)
            h, c = layer_norm_lstm(params, x, state[:num_units], state[num_units:], mask)
            state = np.concatenate([h, c])
        else:
            num_hyper = len(params["hyper.weight_hidden"])
            mask, hyper_mask = (*masks(t), np.ones(num_hyper))[:2]
            h, hyper_h, c, hyper_c = np.split(state, [num_units, num_units + num_hyper, 2 * num_units + num_hyper])
            h, hyper_h, c, hyper_c = hyper_lstm(params, x, h, hyper_h, c, hyper_c, mask, hyper_mask)
            state = np.concatenate([h, hyper_h, c, hyper_c])
        outputs[t] = h
    return outputs, state
