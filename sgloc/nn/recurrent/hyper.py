"""The recurrence of the HyperLSTM, forward and backward through time (METHOD 6; Ha, Dai and Le 2016).

Two products compute the twelve scales and shifts of the gates: one projects h' down to twelve embeddings side by side,
a batched one projects these up. The projections of the main h are merged into one product as well.

Shapes: n sequences, R steps over all sequences, time-major; H units, A units of the small LSTM, E embedding width.
Order of the twelve: scales of the input's gates i, j, f, o; scales of the recurrent gates; shifts.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from sgloc.nn.product import accumulate, product
from sgloc.nn.recurrent import gates
from sgloc.nn.recurrent.gates import Norm
from sgloc.nn.recurrent.recurrence import (
    OldAndNew,
    Recurrence,
    Saved,
    Steps,
    Tensors,
    room_for_gradients,
    weight_gradient,
)


class _Tape(NamedTuple):
    """What all steps save for the backward pass besides the states, or views of it for one step.

    Attributes:
        x: [R, 4, H], projected input of the main gates.
        of_h: [R, 4H + 4A], contribution of h to the gates of both LSTMs.
        small_pre: [R, 4A], pre-activations of the small LSTM.
        down: [R, 12 E], the embeddings.
        pre: [R, 4, H], pre-activations of the main LSTM.
        up: [12 R H], scales and shifts: [12, n, H] of one step after the other, so that a batched product writes them
            without a copy.
    """

    x: Tensor
    of_h: Tensor
    small_pre: Tensor
    down: Tensor
    pre: Tensor
    up: Tensor

    def steps(self, sizes: list[int]) -> "list[_Tape]":
        """Split into steps, with `up` as [12, n, H]; `sizes` is the number of sequences at each step."""
        *rows, up = self
        size = self.pre.shape[2]
        ups = (part.view(12, -1, size) for part in up.split([12 * size * number for number in sizes]))
        return list(map(_Tape, *(field.split(sizes) for field in rows), ups))


class _Gradients(NamedTuple):
    """Gradients of the intermediate values of all steps, or views of those of one step.

    Attributes:
        x: [R, 4, H], of the projected input of the main gates.
        of_h: [R, 4H + 4A], of the contribution of h to the gates; the last 4A columns are also the gradient of the
            small LSTM's projected input.
        down: [R, 12 E], of the embeddings.
        up: [R, 12, H], of scales and shifts; the last four are also the gradient of the main pre-activations.
    """

    x: Tensor
    of_h: Tensor
    down: Tensor
    up: Tensor

    def steps(self, sizes: list[int]) -> "list[_Gradients]":
        """Split into steps; `sizes` is the number of sequences at each step."""
        return list(map(_Gradients, *(field.split(sizes) for field in self)))


def _split_gates(rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Split rows [R, 4H + 4A] into [R, 4, H] and [R, 4A]."""
    return rows[:, : 4 * size].view(-1, 4, size), rows[:, 4 * size :]


def _twelve(down: Tensor) -> Tensor:
    """View rows [R, 12 E] as [12, R, E]."""
    return down.view(len(down), 12, -1).transpose(0, 1)


def _scales(up: Tensor) -> Tensor:
    """View one step's [12, n, H] as [3, n, 4, H]: scales of the input's gates, of the recurrent gates, and shifts."""
    return up.view(3, 4, *up.shape[1:]).transpose(1, 2)


def _multiply_into(result: Tensor, first: Tensor, second: Tensor) -> None:
    """Write the product of two [n, 4, H] into a slice of a wider tensor; torch.compile rejects a strided `out`."""
    if torch.compiler.is_compiling():
        result.copy_(first * second)
    else:
        torch.mul(first, second, out=result)


class HyperRecurrence(Recurrence):
    """Recurrence of the HyperLSTM; the state's parts are (h, h', c, c').

    Args:
        weights: in this order, the first five in the dtype used for matrix products:
            hidden [H, 4H + 4A], from h to the gates of the main and the small LSTM;
            hyper_hidden [A, 4A], from h' to the gates of the small LSTM;
            down [A, 12 E] and down_bias [12 E], from h' to the embeddings;
            up [12, E, H], from the embeddings to the scales and shifts;
            bias [4, H], of the main gates, before layer norm;
            the fields of `Norm` of the main LSTM, then of the small one.
    """

    def __init__(self, weights: Tensors) -> None:
        self.hidden, self.hyper_hidden, self.down, self.down_bias, self.up, self.bias, *norms = weights
        self.norm, self.hyper_norm = Norm(*norms[:4]), Norm(*norms[4:])
        self.size, self.hyper_size = len(self.hidden), len(self.hyper_hidden)

    def forward(self, projected: Tensor, masks: Tensor | None, states: Iterable[OldAndNew], steps: Steps) -> Tensors:
        """See `Recurrence.forward`."""
        num_rows = len(projected)
        x, small_x = _split_gates(projected, self.size)
        tape = _Tape(
            x=x,
            of_h=self.hidden.new_empty(num_rows, self.hidden.shape[1]),
            small_pre=small_x.to(self.bias.dtype, copy=True),
            down=self.down.new_empty(num_rows, self.down.shape[1]),
            pre=self.bias.new_empty(num_rows, 4, self.size),
            up=self.up.new_empty(12 * num_rows * self.size),
        )
        all_masks = map(steps.split, self._parts_of_masks(masks))
        views = zip(tape.steps(steps.sizes), *all_masks, states, strict=True)
        for number, (step, mask, small_mask, ((h, small_h, c, small_c), new)) in enumerate(views):
            new_h, new_small_h, new_c, new_small_c = new
            main_of_h, small_of_h = _split_gates(step.of_h, self.size)
            if number > 0 or steps.has_state:
                product(h.to(self.hidden.dtype), self.hidden, out=step.of_h)
                step.small_pre.add_(small_of_h)
                accumulate(step.small_pre, small_h, self.hyper_hidden)
            else:
                step.of_h.zero_()
            small_gates = step.small_pre.view(-1, 4, self.hyper_size)
            gates.step(small_gates, small_c, small_mask, self.hyper_norm, new_small_c, new_small_h)
            product(new_small_h.to(self.down.dtype), self.down, self.down_bias, out=step.down)
            torch.bmm(_twelve(step.down), self.up, out=step.up)
            scale_x, scale_h, shift = _scales(step.up)
            torch.add(shift, self.bias, out=step.pre)
            step.pre.addcmul_(step.x, scale_x).addcmul_(main_of_h, scale_h)
            gates.step(step.pre, c, mask, self.norm, new_c, new_h)
        return tuple(tape)

    def back(
        self, grad: Tensor, grad_last: Tensors, masks: Tensor | None, saved: Saved, steps: Steps
    ) -> tuple[Tensors, Tensors]:
        """See `Recurrence.back`."""
        tape, (mask, small_mask) = _Tape(*saved.tape), self._parts_of_masks(masks)
        (_, _, c, small_c), (_, _, new_c, new_small_c) = saved.old, saved.new
        small_gates = tape.small_pre.view(-1, 4, self.hyper_size)
        main, normed = gates.linearize(tape.pre, c, new_c, mask, self.norm)
        small, small_normed = gates.linearize(small_gates, small_c, new_small_c, small_mask, self.hyper_norm)
        gradients = _Gradients(
            x=tape.pre.new_empty(tape.x.shape),
            of_h=torch.empty_like(tape.of_h),
            down=torch.empty_like(tape.down),
            up=tape.up.new_empty(len(tape.x), 12, self.size),
        )
        grad_h, others = room_for_gradients(grad, grad_last, steps)
        sizes = steps.sizes
        views = zip(main.steps(sizes), small.steps(sizes), tape.steps(sizes), gradients.steps(sizes), strict=True)
        for number, (main_step, small_step, step, gradient) in reversed(list(enumerate(views))):
            grad_small_h, grad_c, grad_small_c = (part[: sizes[number]] for part in others)
            grad_pre = gates.step_back(main_step, grad_h[number], grad_c, self.norm)
            self._scale_back(grad_pre, step, gradient)
            accumulate(grad_small_h, gradient.down, self.down.t())
            grad_small = gates.step_back(small_step, grad_small_h, grad_small_c, self.hyper_norm).flatten(1)
            gradient.of_h[:, 4 * self.size :].copy_(grad_small)
            if number > 0:
                accumulate(grad_h[number - 1][: sizes[number]], gradient.of_h, self.hidden.t())
            if number > 0 or steps.has_state:
                grad_small_h.copy_(product(grad_small.to(self.hyper_hidden.dtype), self.hyper_hidden.t()))
        grad_first = grad_h[0]
        if steps.has_state:
            grad_first = product(gradient.of_h, self.hidden.t()).to(grad.dtype)
        of_norms = main.gates, main.cell, *normed, small.gates, small.cell, *small_normed
        return (grad_first, *others), (*gradients, *of_norms)

    def gradients(self, saved: Saved, of_steps: Tensors, steps: Steps) -> tuple[Tensor, Tensors]:
        """See `Recurrence.gradients`."""
        tape, gradients, of_norms = _Tape(*saved.tape), _Gradients(*of_steps[:4]), of_steps[4:]
        grad_small, num_idle = gradients.of_h[:, 4 * self.size :], steps.num_idle
        h, small_h = (part[num_idle:] for part in saved.old[:2])
        products = (
            weight_gradient(h, gradients.of_h[num_idle:], self.hidden),
            weight_gradient(small_h, grad_small[num_idle:], self.hyper_hidden),
            weight_gradient(saved.new[1], gradients.down, self.down),
            gradients.down.sum(0),
            _twelve(tape.down).transpose(1, 2) @ gradients.up.transpose(0, 1),
        )
        norms = (*gates.norm_gradients(*of_norms[:4]), *gates.norm_gradients(*of_norms[4:]))
        grad_projected = torch.cat([gradients.x.flatten(1), grad_small], dim=1)
        return grad_projected, (*products, gradients.up[:, 8:].sum(0), *norms)

    def _scale_back(self, grad_pre: Tensor, step: _Tape, gradient: _Gradients) -> None:
        """Backpropagate one step from the main pre-activations [n, 4, H] through scales and shifts to the embeddings.

        Args:
            grad_pre: [n, 4, H], gradient of the main pre-activations.
            step: the step's tape.
            gradient: receives the gradients, except those of the small LSTM's gates.
        """
        scale_x, scale_h, _ = _scales(step.up)
        of_h, _ = _split_gates(step.of_h, self.size)
        grad_of_h, _ = _split_gates(gradient.of_h, self.size)
        grad_scale_x, grad_scale_h, grad_shift = gradient.up.split(4, dim=1)
        torch.mul(grad_pre, scale_x, out=gradient.x)
        _multiply_into(grad_of_h, grad_pre, scale_h)
        _multiply_into(grad_scale_x, grad_pre, step.x)
        _multiply_into(grad_scale_h, grad_pre, of_h)
        grad_shift.copy_(grad_pre)
        _twelve(gradient.down).copy_(gradient.up.transpose(0, 1) @ self.up.transpose(1, 2))

    def _parts_of_masks(self, masks: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Split masks [R, H] or [R, H + A] into the main LSTM's and, if present, the small one's."""
        if masks is None or masks.shape[1] == self.size:
            return masks, None
        return masks[:, : self.size], masks[:, self.size :]
