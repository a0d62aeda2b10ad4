"""Recurrent cells: LSTM, layer-norm LSTM and HyperLSTM (METHOD 5 and 6; Ha, Dai and Le 2016).

A cell is its weights. Its work is in two parts: `project` is what depends on inputs alone, computed for all steps in
one product; the recurrence is the rest. Recurrent dropout masks are multiplied into the candidate tanh(j). All three
cells add a forget bias of 1.
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
    """Gate biases [4H], 1 added to the forget gate's; returns [4, H]."""
    offset = torch.tensor([0, 0, _FORGET_BIAS, 0], dtype=bias.dtype, device=bias.device)
    return bias.view(4, -1) + offset[:, None]


def _for_product(weight: Tensor) -> Tensor:
    """The weight in the type in which to multiply by it: its own or, under autocast, the shorter one."""
    device = weight.device.type
    return weight.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else weight


class Cell(nn.Module):
    """What the three cells have in common.

    Attributes:
        hidden_size: H, the width of the output.
        state_sizes: widths of the state's parts, the output h first.
        mask_size: width of a step's dropout mask.
        packed_variables: parameters that hold several of the original's variables side by side: along which dimension,
            and how many (`sgloc.train.engine.clipping`).
        recurrence: makes the cell's recurrence of its `weights`.
        compiled_steps: to run by; None runs each operation as it comes.
    """

    recurrence: ClassVar[type[LSTMRecurrence] | type[HyperRecurrence]]
    packed_variables: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({})

    def __init__(self, input_size: int, hidden_size: int, state_sizes: tuple[int, ...], mask_size: int) -> None:
        super().__init__()
        self.weight_input = nn.Parameter(nn.init.xavier_uniform_(torch.empty(input_size, 4 * hidden_size)))
        # One orthogonal [H, H] matrix a gate, side by side.
        gates = [nn.init.orthogonal_(torch.empty(hidden_size, hidden_size)) for _ in range(4)]
        self.weight_hidden = nn.Parameter(torch.cat(gates, dim=1))
        self.hidden_size = hidden_size
        self.state_sizes = state_sizes
        self.mask_size = mask_size
        self.compiled_steps: CompiledSteps | None = None

    def project(self, inputs: Tensor, first: int = 0) -> Tensor:
        """The share of the pre-activations that inputs first to first + I give.

        Args:
            inputs: [R, I], part or all of the inputs.
            first: which of the cell's inputs the first column is.

        Returns:
            [R, G], to be summed over the parts of the input; G = 4H.
        """
        return multiply(inputs, self.weight_input[first : first + inputs.shape[1]])

    def weights(self) -> Tensors:
        """What `recurrence` is made of, differentiable; what multiplies is in autocast's type, where there is one."""
        raise NotImplementedError

    def run(
        self,
        projected: Tensor,
        layout: TimeMajor,
        state: Tensor | None,
        masks: Tensor | None,
        segment: int | None = None,
    ) -> Tensor:
        """Run the cell over sequences, differentiably, but only once.

        Args:
            projected: [R, G], the time-major rows of `project`, all parts of the input summed.
            layout: where the rows belong.
            state: flat [n, sum of state_sizes], each sequence's first state, in the sequences' original order; None for
                zeros.
            masks: [R, mask_size], recurrent dropout masks, time-major; None for no dropout.
            segment: keep only each so manieth step's state for the backward pass, and compute the steps between again.

        Returns:
            [R, H], the outputs, time-major, in the weights' type: autocast's shorter types are for products alone, a
            sum over many steps needs the digits.
        """
        weights, steps = self.weights(), Steps(layout.batch_sizes, state is not None)
        if state is None:
            parts = tuple(weights[-1].new_zeros(len(layout.order), size) for size in self.state_sizes)
        else:
            parts = self.split_state(state[layout.order].to(weights[-1].dtype))
        if self.compiled_steps is None:
            return through_time(self.recurrence, weights, projected, masks, parts, steps, segment)
        padded_steps, rows = padded(steps, projected.device)
        # Ones do no more than no masks, and would be compiled apart from them.
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
        """A flat state [n, sum of state_sizes], as METHOD orders it, in its parts, the output h first."""
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
        """For `torch.lstm`: [4H, I], [4H, H], [4H] and [4H], gates in the order i, f, j, o."""
        i, j, f, o = (
            torch.cat([self.weight_input, self.weight_hidden, _with_forget_bias(self.bias).view(1, -1)]).t().chunk(4)
        )
        gates = torch.cat([i, f, j, o])
        num_inputs = len(self.weight_input)
        bias = gates[:, -1]
        return gates[:, :num_inputs], gates[:, num_inputs:-1], bias, torch.zeros_like(bias)


@torch.no_grad()
def last_outputs(ahead: LSTM, back: LSTM, inputs: Tensor, layout: TimeMajor) -> Tensor:
    """The library's fused LSTM in both directions at once, without dropout and without gradients: cuDNN on CUDA.

    Args:
        ahead, back: the cells of either direction.
        inputs: [R, I], time-major in the forward direction.
        layout: where the rows belong.

    Returns:
        The outputs at the last step of either direction side by side, [n, 2H], in the sequences' original order.
    """
    directions = ahead.library_weights(), back.library_weights()
    # cuDNN wants all matrices first, then all biases, in one piece of memory. It would bring them together at every
    # call otherwise, and warn.
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
    """Weights of the layer norm of each gate's pre-activations, and of the new cell before the output tanh."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gate_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.gate_bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.cell_gain = nn.Parameter(torch.ones(hidden_size))
        self.cell_bias = nn.Parameter(torch.zeros(hidden_size))

    def weights(self) -> Norm:
        """As the recurrences want them."""
        return Norm(self.gate_gain.view(4, -1), _with_forget_bias(self.gate_bias), self.cell_gain, self.cell_bias)


class LayerNormLSTM(Cell):
    """The layer-norm LSTM, without a gate bias; its flat state is (h, c)."""

    recurrence = LSTMRecurrence

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, (hidden_size, hidden_size), hidden_size)
        self.norm = _NormalizedGates(hidden_size)

    def weights(self) -> Tensors:
        """See `Cell.weights`."""
        return (_for_product(self.weight_hidden), *self.norm.weights())


class HyperLSTM(Cell):
    """The HyperLSTM; its flat state is (h, hyper_h, c, hyper_c).

    A small layer-norm LSTM reads the input and the old h; its output h' scales the eight gate pre-activations (four of
    the input, four recurrent) and shifts the four recurrent ones, through embeddings of width E. Dropout masks are
    [n, H], of the main candidate; with `drop_both` they are [n, H + A]: the main candidate's, then the small one's.
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
        """See `Cell.project`; G = 4H of the main cell, then 4A of the small one."""
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
