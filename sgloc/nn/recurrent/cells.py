"""Recurrent cells: LSTM, layer-norm LSTM and HyperLSTM (METHOD 5 and 6; Ha, Dai and Le 2016).

A cell holds the weights. Its computation has two parts: `project` handles the inputs of all steps in one product, and
the recurrence does the rest. Recurrent dropout masks multiply the candidate tanh(j). All three cells add a forget bias
of 1.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from sgloc.nn.product import multiply
from sgloc.nn.recurrent.compiled import CompiledRecurrence, CompiledSteps, pad, padded
from sgloc.nn.recurrent.gates import Norm
from sgloc.nn.recurrent.hyper import HyperRecurrence
from sgloc.nn.recurrent.recurrence import LSTMRecurrence, Steps, Tensors, through_time, with_zeros
from sgloc.nn.recurrent.sequence import TimeMajor

_FORGET_BIAS = 1.0
_SHIFT_STANDARD_DEVIATION = 0.01
_INITIAL_SCALE = 0.1


def _with_forget_bias(bias: Tensor) -> Tensor:
    """Add 1 to the forget gate's part of the gate biases [4H]; return [4, H]."""
    offset = torch.tensor([0, 0, _FORGET_BIAS, 0], dtype=bias.dtype, device=bias.device)
    return bias.view(4, -1) + offset[:, None]


def _for_product(weight: Tensor) -> Tensor:
    """Convert a weight to the dtype of matrix products: autocast's if it is enabled, else its own."""
    device = weight.device.type
    return weight.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else weight


class Cell(nn.Module):
    """Base class of the three cells.

    Attributes:
        hidden_size: H, the width of the output.
        state_sizes: widths of the state's parts, the output h first.
        mask_size: width of the dropout mask of one step.
        packed_variables: parameters that pack several variables of the original side by side: name to dimension and
            number of variables (`sgloc.train.engine.clipping`).
        recurrence: builds the cell's recurrence from `weights`.
        compiled_steps: the compiled steps to run; None runs eagerly.
    """

    recurrence: ClassVar[type[LSTMRecurrence] | type[HyperRecurrence]]
    packed_variables: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({})

    def __init__(self, input_size: int, hidden_size: int, state_sizes: tuple[int, ...], mask_size: int) -> None:
        super().__init__()
        self.weight_input = nn.Parameter(nn.init.xavier_uniform_(torch.empty(input_size, 4 * hidden_size)))
        # One orthogonal [H, H] matrix per gate, side by side.
        gates = [nn.init.orthogonal_(torch.empty(hidden_size, hidden_size)) for _ in range(4)]
        self.weight_hidden = nn.Parameter(torch.cat(gates, dim=1))
        self.hidden_size = hidden_size
        self.state_sizes = state_sizes
        self.mask_size = mask_size
        self.compiled_steps: CompiledSteps | None = None

    def project(self, inputs: Tensor, first: int = 0) -> Tensor:
        """Compute the contribution of inputs first to first + I to the pre-activations.

        Args:
            inputs: [R, I], some or all of the inputs.
            first: index of the cell's input that column 0 holds.

        Returns:
            [R, G], which the caller sums over the parts of the input; G = 4H.
        """
        return multiply(inputs, self.weight_input[first : first + inputs.shape[1]])

    def weights(self) -> Tensors:
        """Return the arguments of `recurrence`, differentiable; matrices are in autocast's dtype if it is enabled."""
        raise NotImplementedError

    def run(
        self,
        projected: Tensor,
        layout: TimeMajor,
        state: Tensor | None,
        masks: Tensor | None,
        segment: int | None = None,
    ) -> Tensor:
        """Run the cell over sequences; differentiable once.

        Args:
            projected: [R, G], time-major rows of `project`, summed over all parts of the input.
            layout: the layout of the rows.
            state: flat [n, sum of state_sizes], the initial state of each sequence, in the original order of the
                sequences; None for zeros.
            masks: [R, mask_size], recurrent dropout masks, time-major; None for no dropout.
            segment: number of steps between the states kept for the backward pass, which recomputes the steps in
                between; None keeps every step.

        Returns:
            [R, H], the outputs, time-major, in the dtype of the parameters: autocast's dtype is for products only,
            because sums over many steps need the precision.
        """
        weights, steps = self.weights(), Steps(layout.batch_sizes, state is not None)
        if state is None:
            parts = tuple(weights[-1].new_zeros(len(layout.order), size) for size in self.state_sizes)
        else:
            parts = self.split_state(state[layout.order].to(weights[-1].dtype))
        if self.compiled_steps is None:
            return through_time(self.recurrence, weights, projected, masks, parts, steps, segment)
        padded_steps, rows = padded(steps, projected.device)
        # Masks of ones change nothing; without masks torch.compile would make a second set of graphs.
        masks = parts[0].new_ones(len(projected), self.mask_size) if masks is None else masks
        outputs = through_time(
            partial(CompiledRecurrence, self.compiled_steps, self.recurrence),
            weights,
            pad(projected, padded_steps, rows),
            pad(masks, padded_steps, rows),
            tuple(with_zeros(part, padded_steps.sizes[0]) for part in parts),
            padded_steps,
            segment,
        )
        return outputs[rows]

    def split_state(self, flat: Tensor) -> Tensors:
        """Split a flat state [n, sum of state_sizes], ordered as in METHOD, into its parts, the output h first."""
        return tuple(flat.split(self.state_sizes, dim=1))


class LSTM(Cell):
    """The plain LSTM; its flat state is (c, h)."""

    recurrence = LSTMRecurrence

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, (hidden_size, hidden_size), hidden_size)
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))

    def weights(self) -> Tensors:
        """See `Cell.weights`."""
        return _for_product(self.weight_hidden), _with_forget_bias(self.bias).flatten()

    def split_state(self, flat: Tensor) -> Tensors:
        """See `Cell.split_state`."""
        c, h = super().split_state(flat)
        return h, c

    def library_weights(self) -> Tensors:
        """Return the weights for `torch.lstm`: [4H, I], [4H, H], [4H] and [4H], gates in the order i, f, j, o."""
        i, j, f, o = (
            torch.cat([self.weight_input, self.weight_hidden, _with_forget_bias(self.bias).view(1, -1)]).t().chunk(4)
        )
        gates = torch.cat([i, f, j, o])
        num_inputs = len(self.weight_input)
        bias = gates[:, -1]
        return gates[:, :num_inputs], gates[:, num_inputs:-1], bias, torch.zeros_like(bias)


@torch.no_grad()
def last_outputs(ahead: LSTM, back: LSTM, inputs: Tensor, layout: TimeMajor) -> Tensor:
    """Run torch's fused LSTM (cuDNN on CUDA) in both directions at once, without dropout or gradients.

    Args:
        ahead, back: the cells of the two directions.
        inputs: [R, I], time-major in the forward direction.
        layout: the layout of the rows.

    Returns:
        The last outputs of the two directions side by side, [n, 2H], in the original order of the sequences.
    """
    directions = ahead.library_weights(), back.library_weights()
    # cuDNN expects all matrices, then all biases, in one block of memory; otherwise it copies them there at every call,
    # with a warning.
    ordered = [weight for kind in (slice(2), slice(2, 4)) for weights in directions for weight in weights[kind]]
    memory = torch.cat([weight.flatten() for weight in ordered]).split([weight.numel() for weight in ordered])
    placed = [part.view(weight.shape) for part, weight in zip(memory, ordered, strict=True)]
    weights = [*placed[:2], *placed[4:6], *placed[2:4], *placed[6:]]
    zeros = weights[0].new_zeros(2, len(layout.order), ahead.hidden_size)
    with torch.autocast(inputs.device.type, enabled=False):
        sizes = torch.tensor(layout.batch_sizes)
        _, h, _ = torch.lstm(inputs, sizes, (zeros, zeros), weights, True, 1, 0.0, False, True)
    return torch.cat(torch.empty_like(h).index_copy(1, layout.order, h).unbind(), dim=1)


class _NormalizedGates(nn.Module):
    """Parameters of the layer norms of the gate pre-activations and of the new cell state before the output tanh."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gate_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.gate_bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.cell_gain = nn.Parameter(torch.ones(hidden_size))
        self.cell_bias = nn.Parameter(torch.zeros(hidden_size))

    def weights(self) -> Norm:
        """Return the parameters as the recurrences take them, with the forget bias added."""
        return Norm(self.gate_gain.view(4, -1), _with_forget_bias(self.gate_bias), self.cell_gain, self.cell_bias)


class LayerNormLSTM(Cell):
    """The layer-norm LSTM, which has no gate bias; its flat state is (h, c)."""

    recurrence = LSTMRecurrence

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, (hidden_size, hidden_size), hidden_size)
        self.norm = _NormalizedGates(hidden_size)

    def weights(self) -> Tensors:
        """See `Cell.weights`."""
        return (_for_product(self.weight_hidden), *self.norm.weights())


class HyperLSTM(Cell):
    """The HyperLSTM; its flat state is (h, hyper_h, c, hyper_c).

    A small layer-norm LSTM of A units reads the input and the old h. Through embeddings of width E, its output h'
    scales the eight gate pre-activations (four from the input, four recurrent) and shifts the four recurrent ones.
    Dropout masks are [n, H], for the main candidate; with `drop_both` they are [n, H + A]: the main candidate's, then
    the small one's.
    """

    recurrence = HyperRecurrence

    packed_variables: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType(
        {
            "scale_down_weight": (1, 8),
            "scale_down_bias": (0, 8),
            "scale_up": (0, 8),
            "shift_down": (1, 4),
            "shift_up": (0, 4),
        }
    )

    def __init__(
        self, input_size: int, hidden_size: int, hyper_size: int, embedding_size: int, drop_both: bool = False
    ) -> None:
        sizes = (hidden_size, hyper_size, hidden_size, hyper_size)
        super().__init__(input_size, hidden_size, sizes, hidden_size + hyper_size if drop_both else hidden_size)
        self.hyper_size, self.input_size = hyper_size, input_size
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.norm = _NormalizedGates(hidden_size)
        self.hyper = LayerNormLSTM(input_size + hidden_size, hyper_size)
        self.scale_down_weight = nn.Parameter(torch.zeros(hyper_size, 8 * embedding_size))
        self.scale_down_bias = nn.Parameter(torch.ones(8 * embedding_size))
        self.scale_up = nn.Parameter(torch.full((8, embedding_size, hidden_size), _INITIAL_SCALE / embedding_size))
        self.shift_down = nn.Parameter(torch.randn(hyper_size, 4 * embedding_size) * _SHIFT_STANDARD_DEVIATION)
        self.shift_up = nn.Parameter(torch.zeros(4, embedding_size, hidden_size))

    def project(self, inputs: Tensor, first: int = 0) -> Tensor:
        """See `Cell.project`; G = 4H + 4A, the main cell's columns first."""
        columns = slice(first, first + inputs.shape[1])
        return multiply(inputs, torch.cat([self.weight_input[columns], self.hyper.weight_input[columns]], dim=1))

    def weights(self) -> Tensors:
        """See `Cell.weights`."""
        shift_bias = self.scale_down_bias.new_zeros(self.shift_down.shape[1])
        products = (
            torch.cat([self.weight_hidden, self.hyper.weight_input[self.input_size :]], dim=1),
            self.hyper.weight_hidden,
            torch.cat([self.scale_down_weight, self.shift_down], dim=1),
            torch.cat([self.scale_down_bias, shift_bias]),
            torch.cat([self.scale_up, self.shift_up]),
        )
        others = (self.bias.view(4, -1), *self.norm.weights(), *self.hyper.norm.weights())
        return (*(_for_product(weight) for weight in products), *others)
