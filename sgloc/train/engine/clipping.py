"""Gradient clipping by variable: each of the original's variables is clipped separately (METHOD 8 and 11)."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class _Parts(NamedTuple):
    """The layout of a parameter's variables: `num_parts` of equal size, concatenated along `dimension`."""

    shape: torch.Size
    dimension: int
    num_parts: int


class Piece(NamedTuple):
    """A rank's part of a parameter's gradient.

    Attributes:
        parameter: index of the parameter in the model.
        start: index of the piece's first element in the flattened parameter.
        gradient: the complete gradient or a flat part of it; elements past the parameter's end are padding.
    """

    parameter: int
    start: int
    gradient: Tensor


def whole_pieces(parameters: Sequence[nn.Parameter]) -> list[Piece]:
    """Return the gradients of a model with unsharded weights as pieces."""
    return [Piece(number, 0, one.grad) for number, one in enumerate(parameters) if one.grad is not None]


class VariableClipping:
    """Clips the gradient of every variable to a maximum norm, as `tf.clip_by_norm` does.

    A variable is one of the original's. A module that packs several into one parameter declares it in an attribute
    `packed_variables`, which maps the parameter's name to the dimension they are concatenated along and their number.

    Args:
        model: the model whose gradients are clipped.
        clip_norm: the maximum norm.
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
        """Number of variables in the model."""
        return self._first[-1]

    def squares(self, pieces: Sequence[Piece]) -> Tensor:
        """Return the squared gradient norms [variables] of this rank's pieces, to be summed over ranks if sharded."""
        if not pieces:
            return torch.zeros(self.num_variables)
        norms = [pieces[0].gradient.new_zeros(())] * self.num_variables
        found = [pair for piece in pieces for pair in self._variables(piece, self._whole(piece))]
        for (number, _), norm in zip(found, torch._foreach_norm([part for _, part in found]), strict=True):
            norms[number] = norm
        return torch.stack(norms).square()

    def scale(self, pieces: Sequence[Piece], squares: Tensor) -> None:
        """Clip the gradients in place.

        Args:
            pieces: the pieces passed to `squares`.
            squares: [variables], squared norms of the complete gradients.
        """
        factors = (self.clip_norm / squares.sqrt().clamp(min=self.clip_norm)).unbind()
        for piece in pieces:
            whole = self._whole(piece)
            for number, part in self._variables(piece, whole):
                part.mul_(factors[number])
            if whole is not piece.gradient:
                piece.gradient.copy_(whole[piece.start : piece.start + piece.gradient.numel()].view_as(piece.gradient))

    def _whole(self, piece: Piece) -> Tensor:
        """Return the piece's gradient, or a flat, zero-padded copy for an incomplete piece of a packed parameter."""
        parts, gradient = self._parts[piece.parameter], piece.gradient
        size = parts.shape.numel()
        if parts.num_parts == 1 or (piece.start == 0 and gradient.numel() == size):
            return gradient
        stop = piece.start + gradient.numel()
        whole = gradient.new_zeros(max(size, stop))
        whole[piece.start : stop] = gradient.flatten()
        return whole

    def _variables(self, piece: Piece, whole: Tensor) -> list[tuple[int, Tensor]]:
        """Return (number, view) of each variable in the result of `_whole`."""
        parts, first = self._parts[piece.parameter], self._first[piece.parameter]
        if parts.num_parts == 1:
            return [(first, whole)]
        own = whole.flatten()[: parts.shape.numel()].view(parts.shape)
        return list(enumerate(own.chunk(parts.num_parts, parts.dimension), first))
