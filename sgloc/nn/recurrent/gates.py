"""What an LSTM does between its products, one step at a time, and back (METHOD 5 and 6).

On the way back everything that depends on the activations alone is computed for all steps at once, by `linearize`; what
is left to each step is a handful of products of numbers. Gates are in the order i, j, f, o.

Shapes: n sequences that have a step, R steps of all sequences together, H units.
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
    """Layer norm of each gate, and of the new cell before the output tanh.

    Attributes:
        gain, bias: [4, H], of the gates; the bias holds the forget bias.
        cell_gain, cell_bias: [H].
    """

    gain: Tensor
    bias: Tensor
    cell_gain: Tensor
    cell_bias: Tensor


def _normed_gates(normed: Tensor, norm: Norm) -> tuple[Tensor, ...]:
    """The gates [n, H] one by one, of pre-activations [n, 4, H] after layer norm, before gain and bias."""
    i, j, f, o = torch.addcmul(norm.bias, normed, norm.gain).unbind(1)
    # Not in place: a compiler would write down what is squashed, before and after.
    return i.sigmoid(), j.tanh(), f.sigmoid(), o.sigmoid()


def step(pre: Tensor, c: Tensor, mask: Tensor | None, norm: Norm | None, new_c: Tensor, new_h: Tensor) -> None:
    """One step forward.

    Args:
        pre: [n, 4, H], pre-activations of the gates, the forget bias included unless `norm` holds it. Without `norm`
            they are replaced by the activations.
        c: [n, H], the old cell.
        mask: [n, H], recurrent dropout of the candidate, or None.
        norm: layer norm, if there is one.
        new_c: [n, H], to write the new cell into.
        new_h: [n, H], to write the output into.
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
    """The derivatives of all steps. Going back turns `gates` and `cell` into gradients, in place.

    Attributes:
        gates: [R, 4, H]: of the new cell by the gates i, j and f after layer norm, and of the output by o.
        cell: [R, H], of the output by the new cell after layer norm.
        forget: [R, H], of the new cell by the old one.
        normalized: with layer norm what it knows of its inputs, else empty: the pre-activations [R, 4, H], their mean
            and inverse deviation [R, 4, 1]; the new cells [R, H], their mean and inverse deviation [R, 1].
    """

    gates: Tensor
    cell: Tensor
    forget: Tensor
    normalized: tuple[Tensor, ...]

    def steps(self, sizes: list[int]) -> "list[Linearized]":
        """The same, step by step, of which so many sequences have each."""
        fields = (field.split(sizes) for field in (self.gates, self.cell, self.forget, *self.normalized))
        each = zip(*fields, strict=True)
        return [Linearized(gates, cell, forget, tuple(others)) for gates, cell, forget, *others in each]


def linearize(
    pre: Tensor, c: Tensor, new_c: Tensor, mask: Tensor | None, norm: Norm | None
) -> tuple[Linearized, tuple[Tensor, ...]]:
    """The derivatives of all steps, by what `step` read and wrote.

    Args:
        pre: [R, 4, H], as `step` left them.
        c: [R, H], the old cells.
        new_c: [R, H].
        mask: [R, H] or None.
        norm: as given to `step`.

    Returns:
        The derivatives; and with layer norm the gates [R, 4, H] and cells [R, H] after it, before gain and bias.
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
    """One step backward.

    Args:
        derivatives: of this step; its gates and cell become gradients.
        grad_h: [n, H], gradient of the output.
        grad_c: [n, H], gradient of the new cell; becomes that of the old cell.
        norm: as given to `step`.

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
    """Gradients of the layer norm's weights, once all steps have gone back.

    Args:
        gates, cell: [R, 4, H] and [R, H], the derivatives of all steps, after `step_back`.
        plain, plain_c: [R, 4, H] and [R, H], what `linearize` returned beside them.
    """
    return Norm((gates * plain).sum(0), gates.sum(0), (cell * plain_c).sum(0), cell.sum(0))
