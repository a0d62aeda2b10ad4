"""Recurrent cells: LSTM, layer-norm LSTM and HyperLSTM (METHOD 5 and 6; Ha, Dai and Le 2016).

A cell splits its work in two: `project` is what depends on inputs alone, computed for all steps in one product; `step`
    is the rest. Recurrent dropout
masks are multiplied into the candidate tanh(j). All three cells add a forget bias of 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgloc.config import CellName

_FORGET_BIAS = 1.0
_LAYER_NORM_EPSILON = 1e-3
_SHIFT_STANDARD_DEVIATION = 0.01
_INITIAL_SCALE = 0.1

State = tuple[Tensor, ...]


def _input_weight(input_size: int, num_outputs: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(input_size, num_outputs)))


def _recurrent_weight(size: int) -> nn.Parameter:
    """One orthogonal [H, H] matrix a gate, side by side."""
    return nn.Parameter(torch.cat([nn.init.orthogonal_(torch.empty(size, size)) for _ in range(4)], dim=1))


def _new_cell(gates: tuple[Tensor, ...], c: Tensor, mask: Tensor | None) -> Tensor:
    i, j, f, _ = gates
    candidate = torch.tanh(j) if mask is None else torch.tanh(j) * mask
    return c * torch.sigmoid(f + _FORGET_BIAS) + torch.sigmoid(i) * candidate


class Cell(nn.Module):
    """What the three cells have in common.

    Attributes:
        hidden_size: H, the width of the output.
        state_sizes: widths of the parts of the state, in the order in which a flat state holds them.
        mask_size: width of a step's dropout mask.
    """

    def __init__(self, hidden_size: int, state_sizes: tuple[int, ...], mask_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.state_sizes = state_sizes
        self.mask_size = mask_size

    def project(self, inputs: Tensor, first: int = 0) -> Tensor:
        """The share of the pre-activations that inputs first to first + I give.

        Args:
            inputs: [R, I], part or all of the inputs.
            first: which of the cell's inputs the first column is.

        Returns:
            [R, G], to be summed over the parts of the input and given to `step`.
        """
        raise NotImplementedError

    def step(self, projected: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """One time step of n sequences.

        Args:
            projected: [n, G], what `project` made of the step's inputs.
            state: the state's parts, [n, size] each, in the order of `state_sizes`.
            mask: [n, mask_size] recurrent dropout mask, or None.

        Returns:
            The output [n, H], and the new state.
        """
        raise NotImplementedError

    def split_state(self, flat: Tensor) -> State:
        """A flat state [n, sum of state_sizes] in its parts."""
        return tuple(flat.split(self.state_sizes, dim=1))


class LSTM(Cell):
    """The plain LSTM; its state is (c, h)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(hidden_size, (hidden_size, hidden_size), hidden_size)
        self.weight_input = _input_weight(input_size, 4 * hidden_size)
        self.weight_hidden = _recurrent_weight(hidden_size)
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))

    def project(self, inputs: Tensor, first: int = 0) -> Tensor:
        """See `Cell.project`; G = 4H."""
        return inputs @ self.weight_input[first : first + inputs.shape[1]]

    def step(self, projected: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """See `Cell.step`."""
        c, h = state
        gates = (projected + torch.addmm(self.bias, h, self.weight_hidden)).chunk(4, dim=1)
        c = _new_cell(gates, c, mask)
        h = torch.tanh(c) * torch.sigmoid(gates[3])
        return h, (c, h)


class _NormalizedGates(nn.Module):
    """Layer norm of each gate's pre-activations, and of the new cell before the output tanh."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gate_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.gate_bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.cell_gain = nn.Parameter(torch.ones(hidden_size))
        self.cell_bias = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, gates: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gates [n, 4, H] and old cell [n, H] to new hidden and new cell."""
        size = self.hidden_size
        normed = F.layer_norm(gates, (size,), eps=_LAYER_NORM_EPSILON)
        gate = torch.addcmul(self.gate_bias.view(4, size), normed, self.gate_gain.view(4, size)).unbind(1)
        c = _new_cell(gate, c, mask)
        h = torch.tanh(F.layer_norm(c, (size,), self.cell_gain, self.cell_bias, _LAYER_NORM_EPSILON)) * torch.sigmoid(
            gate[3]
        )
        return h, c


class LayerNormLSTM(Cell):
    """The layer-norm LSTM, without a gate bias; its state is (h, c)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(hidden_size, (hidden_size, hidden_size), hidden_size)
        self.weight_input = _input_weight(input_size, 4 * hidden_size)
        self.weight_hidden = _recurrent_weight(hidden_size)
        self.norm = _NormalizedGates(hidden_size)

    def project(self, inputs: Tensor, first: int = 0) -> Tensor:
        """See `Cell.project`; G = 4H."""
        return inputs @ self.weight_input[first : first + inputs.shape[1]]

    def step(self, projected: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """See `Cell.step`."""
        h, c = state
        gates = projected + h @ self.weight_hidden
        h, c = self.norm(gates.view(-1, 4, self.hidden_size), c, mask)
        return h, (h, c)


class HyperLSTM(Cell):
    """The HyperLSTM; its state is (h, hyper_h, c, hyper_c).

    A small layer-norm LSTM reads the input and the old h; its output h' scales the eight gate pre-activations (four of
    the input, four recurrent) and
    shifts the four recurrent ones, through embeddings of width E. Dropout masks are [n, H + A]: the main candidate's,
    then the small one's.
    """

    def __init__(self, input_size: int, hidden_size: int, hyper_size: int, embedding_size: int) -> None:
        sizes = (hidden_size, hyper_size, hidden_size, hyper_size)
        super().__init__(hidden_size, sizes, hidden_size + hyper_size)
        self.hyper_size, self.embedding_size, self.input_size = hyper_size, embedding_size, input_size
        self.weight_input = _input_weight(input_size, 4 * hidden_size)
        self.weight_hidden = _recurrent_weight(hidden_size)
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
        return torch.cat(
            [inputs @ self.weight_input[first : first + inputs.shape[1]], self.hyper.project(inputs, first)], dim=1
        )

    def step(self, projected: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """See `Cell.step`."""
        h, hyper_h, c, hyper_c = state
        size, embedding = self.hidden_size, self.embedding_size
        of_input, of_hyper = projected.split([4 * size, 4 * self.hyper_size], dim=1)
        main_mask, hyper_mask = (None, None) if mask is None else mask.split([size, self.hyper_size], dim=1)
        _, (hyper_h, hyper_c) = self.hyper.step(
            of_hyper + self.hyper.project(h, self.input_size), (hyper_h, hyper_c), hyper_mask
        )
        scale = (
            torch.addmm(self.scale_down_bias, hyper_h, self.scale_down_weight).view(-1, 8, embedding).transpose(0, 1)
            @ self.scale_up
        )
        shift = (hyper_h @ self.shift_down).view(-1, 4, embedding).transpose(0, 1) @ self.shift_up
        gates = (
            of_input.view(-1, 4, size).transpose(0, 1) * scale[:4]
            + (h @ self.weight_hidden).view(-1, 4, size).transpose(0, 1) * scale[4:]
        )
        gates = (gates + shift).transpose(0, 1) + self.bias.view(4, size)
        h, c = self.norm(gates, c, main_mask)
        return h, (h, hyper_h, c, hyper_c)


def make_cell(name: CellName, input_size: int, hidden_size: int, hyper_size: int, embedding_size: int) -> Cell:
    """The cell of that name; the last two sizes concern only `hyper`."""
    if name == "hyper":
        return HyperLSTM(input_size, hidden_size, hyper_size, embedding_size)
    return {"lstm": LSTM, "layer_norm": LayerNormLSTM}[name](input_size, hidden_size)
