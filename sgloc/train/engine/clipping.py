"""Clipping the gradient of each variable of the original by itself (METHOD 8 and 11)."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class _Parts(NamedTuple):
    """How a parameter is made of variables: `num_parts` of them of the same size, side by side along `dimension`."""

    shape: torch.Size
    dimension: int
    num_parts: int


class Piece(NamedTuple):
    """What a rank has of a parameter's gradient.

    Attributes:
        parameter: which, in the order of the model's parameters.
        start: place of the piece's first number in the flattened parameter.
        gradient: the numbers, a whole or a part; those past the parameter's end are padding.
    """

    parameter: int
    start: int
    gradient: Tensor


def whole_pieces(parameters: Sequence[nn.Parameter]) -> list[Piece]:
    """The gradients of a model whose weights are whole."""
    return [Piece(number, 0, one.grad) for number, one in enumerate(parameters) if one.grad is not None]


class VariableClipping:
    """Scales the gradient of every variable down to a norm, if it is larger, as `tf.clip_by_norm` does.

    A variable is one of the original's. A module that holds several side by side in one parameter says so: its
    `packed_variables` give for such a parameter's name along which dimension they stand, and how many they are.

    Args:
        model: whose gradients.
        clip_norm: the largest norm.
    """

    def __init__(self, model: nn.Module, clip_norm: float) -> None:
        self.clip_norm = clip_norm
        packed = {
            id(getattr(module, name)): parts
            for module in model.modules()
            for name, parts in getattr(module, "packed_variables", {}).items()
        }
        self._parts = [_Parts(parameter.shape, *packed.get(id(parameter), (0, 1))) for parameter in model.parameters()]
        self._first = list(itertools.accumulate((parts.num_parts for parts in self._parts), initial=0))

    @property
    def num_variables(self) -> int:
        """Of the whole model."""
        return self._first[-1]

    def squares(self, pieces: Sequence[Piece]) -> Tensor:
        """Squared norms [variables] of what this rank has of each, to be summed over ranks that have parts."""
        if not pieces:
            return torch.zeros(self.num_variables)
        norms = [pieces[0].gradient.new_zeros(())] * self.num_variables
        found = [pair for piece in pieces for pair in self._variables(piece, self._whole(piece))]
        for (number, _), norm in zip(found, torch._foreach_norm([part for _, part in found]), strict=True):
            norms[number] = norm
        return torch.stack(norms).square()

    def scale(self, pieces: Sequence[Piece], squares: Tensor) -> None:
        """Clip in place.

        Args:
            pieces: as given to `squares`.
            squares: [variables], of all ranks.
        """
        factors = (self.clip_norm / squares.sqrt().clamp(min=self.clip_norm)).unbind()
        for piece in pieces:
            whole = self._whole(piece)
            for number, part in self._variables(piece, whole):
                part.mul_(factors[number])
            if whole is not piece.gradient:
                piece.gradient.copy_(whole[piece.start : piece.start + piece.gradient.numel()].view_as(piece.gradient))

    def _whole(self, piece: Piece) -> Tensor:
        """The piece itself, unless it is a part of several variables: then a copy, flat, with zeros around it."""
        parts, gradient = self._parts[piece.parameter], piece.gradient
        size = parts.shape.numel()
        if parts.num_parts == 1 or (piece.start == 0 and gradient.numel() == size):
            return gradient
        stop = piece.start + gradient.numel()
        whole = gradient.new_zeros(max(size, stop))
        whole[piece.start : stop] = gradient.flatten()
        return whole

    def _variables(self, piece: Piece, whole: Tensor) -> list[tuple[int, Tensor]]:
        """Views of the variables in what `_whole` gave, by their numbers."""
        parts, first = self._parts[piece.parameter], self._first[piece.parameter]
        if parts.num_parts == 1:
            return [(first, whole)]
        own = whole.flatten()[: parts.shape.numel()].view(parts.shape)
        return list(enumerate(own.chunk(parts.num_parts, parts.dimension), first))
