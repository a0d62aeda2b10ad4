"""The elementwise part of an LSTM step, forward and backward (METHOD 5 and 6).

In the backward pass, `linearize` computes everything that depends on the activations alone for all steps at once; each
step is left with a few elementwise products. The gate order is i, j, f, o.

Shapes: n sequences that have the current step, R steps over all sequences, H units.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-3

_layer_norm_backward = torch.ops.aten.native_layer_norm_backward
_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


class Norm(NamedTuple):
    """Parameters of the layer norms: one per gate, and one on the new cell state before the output tanh.

    Attributes:
        gain, bias: [4, H], for the gates; the bias includes the forget bias.
        cell_gain, cell_bias: [H], for the cell state.
    """

    gain: Tensor
    bias: Tensor
    cell_gain: Tensor
    cell_bias: Tensor


def _normed_gates(normed: Tensor, norm: Norm) -> tuple[Tensor, ...]:
    """Return the four gates, [n, H] each, from normalised pre-activations [n, 4, H] without gain and bias."""
    i, j, f, o = torch.addcmul(norm.bias, normed, norm.gain).unbind(1)
    # Not in place: torch.compile would then write the tensor to memory before and after the activations.
    return i.sigmoid(), j.tanh(), f.sigmoid(), o.sigmoid()


def step(pre: Tensor, c: Tensor, mask: Tensor | None, norm: Norm | None, new_c: Tensor, new_h: Tensor) -> None:
    """Compute one step forward, in place.

    Args:
        pre: [n, 4, H], gate pre-activations; without `norm` they include the forget bias and are overwritten by the
            activations.
        c: [n, H], the old cell state.
        mask: [n, H], recurrent dropout mask of the candidate, or None.
        norm: parameters of the layer norms, which include the forget bias, or None.
        new_c: [n, H], receives the new cell state.
        new_h: [n, H], receives the output.
    """
    size = pre.shape[2:]
    if norm is None:
        i, j, f, o = pre.unbind(1)
        for gate in (i, f, o):
            gate.sigmoid_()
        j.tanh_()
    else:
        i, j, f, o = _normed_gates(F.layer_norm(pre, size, eps=_EPSILON), norm)
    torch.mul(f, c, out=new_c).addcmul_(i, j if mask is None else j * mask)
    normed_c = new_c if norm is None else F.layer_norm(new_c, size, norm.cell_gain, norm.cell_bias, _EPSILON)
    torch.mul(torch.tanh(normed_c), o, out=new_h)


class Linearized(NamedTuple):
    """Local derivatives of all steps. The backward pass turns `gates` and `cell` into gradients, in place.

    Attributes:
        gates: [R, 4, H], derivatives with respect to the gates after layer norm: of the new cell state for i, j and f,
            of the output for o.
        cell: [R, H], derivative of the output with respect to the new cell state after layer norm.
        forget: [R, H], derivative of the new cell state with respect to the old one.
        normalized: the inputs of the layer norms and their statistics, empty without layer norm: the pre-activations
            [R, 4, H] with mean and inverse standard deviation [R, 4, 1]; the new cell states [R, H] with mean and
            inverse standard deviation [R, 1].
    """

    gates: Tensor
    cell: Tensor
    forget: Tensor
    normalized: tuple[Tensor, ...]

    def steps(self, sizes: list[int]) -> "list[Linearized]":
        """Split into steps; `sizes` is the number of sequences at each step."""
        fields = (field.split(sizes) for field in (self.gates, self.cell, self.forget, *self.normalized))
        each = zip(*fields, strict=True)
        return [Linearized(gates, cell, forget, tuple(others)) for gates, cell, forget, *others in each]


def linearize(
    pre: Tensor, c: Tensor, new_c: Tensor, mask: Tensor | None, norm: Norm | None
) -> tuple[Linearized, tuple[Tensor, ...]]:
    """Compute the local derivatives of all steps from the inputs and outputs of `step`.

    Args:
        pre: [R, 4, H], as `step` left them.
        c: [R, H], the old cell states.
        new_c: [R, H], the new cell states.
        mask: [R, H] or None.
        norm: as passed to `step`.

    Returns:
        The derivatives; and, with layer norm only, the normalised gates [R, 4, H] and cell states [R, H] before gain
        and bias.
    """
    size, normed_c = pre.shape[2:], new_c
    normalized: tuple[Tensor, ...] = ()
    normed: tuple[Tensor, ...] = ()
    if norm is None:
        i, j, f, o = pre.unbind(1)
    else:
        plain, mean, rstd = torch.native_layer_norm(pre, size, None, None, _EPSILON)
        i, j, f, o = _normed_gates(plain, norm)
        plain_c, mean_c, rstd_c = torch.native_layer_norm(new_c, size, None, None, _EPSILON)
        normed_c = torch.addcmul(norm.cell_bias, plain_c, norm.cell_gain)
        normalized, normed = (pre, mean, rstd, new_c, mean_c, rstd_c), (plain, plain_c)
    squashed = torch.tanh(normed_c)
    candidate, into_candidate = (j, i) if mask is None else (j * mask, i * mask)
    slopes = [
        _sigmoid_backward(candidate, i),
        _tanh_backward(into_candidate, j),
        _sigmoid_backward(c, f),
        _sigmoid_backward(squashed, o),
    ]
    return Linearized(torch.stack(slopes, dim=1), _tanh_backward(o, squashed), f, normalized), normed


def step_back(derivatives: Linearized, grad_h: Tensor, grad_c: Tensor, norm: Norm | None) -> Tensor:
    """Compute one step backward.

    Args:
        derivatives: the derivatives of this step; `gates` and `cell` are overwritten by gradients.
        grad_h: [n, H], gradient of the output.
        grad_c: [n, H], gradient of the new cell state; overwritten by the gradient of the old one.
        norm: as passed to `step`.

    Returns:
        Gradient of the pre-activations, [n, 4, H].
    """
    gates, cell, forget, normalized = derivatives
    cell.mul_(grad_h)
    if norm is None:
        grad_c += cell
    else:
        pre, mean, rstd, c, mean_c, rstd_c = normalized
        grad_c += _layer_norm_backward(
            cell, c, c.shape[1:], mean_c, rstd_c, norm.cell_gain, norm.cell_bias, (True, False, False)
        )[0]
    gates[:, :3].mul_(grad_c[:, None])
    gates[:, 3].mul_(grad_h)
    grad_c.mul_(forget)
    if norm is None:
        return gates
    grad = gates * norm.gain
    result: Tensor = _layer_norm_backward(grad, pre, pre.shape[2:], mean, rstd, None, None, (True, False, False))[0]
    return result


def norm_gradients(gates: Tensor, cell: Tensor, plain: Tensor, plain_c: Tensor) -> Norm:
    """Compute the gradients of the layer norm parameters, after `step_back` has run for all steps.

    Args:
        gates, cell: [R, 4, H] and [R, H], fields of `Linearized` that `step_back` turned into gradients.
        plain, plain_c: [R, 4, H] and [R, H], the normalised values returned by `linearize`.
    """
    return Norm((gates * plain).sum(0), gates.sum(0), (cell * plain_c).sum(0), cell.sum(0))
