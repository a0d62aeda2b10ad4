"""The recurrence of the HyperLSTM (METHOD 6; Ha, Dai and Le 2016), forward and back through time.

The twelve small projections that scale and shift the gates are two products: one from h' down to twelve embeddings side
by side, one batched product from them up to the twelve scales and shifts. What reads the main h is one product too.

Shapes: n sequences, R steps of all sequences together, time-major; H units, A units of the small LSTM, E the width of
an embedding. The twelve are ordered: scales of the input's gates i, j, f, o, scales of the recurrence's, shifts.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sgloc.nn.product import accumulate, product
from sgloc.nn.recurrent import gates
from sgloc.nn.recurrent.gates import Linearized, Norm
from sgloc.nn.recurrent.recurrence import (
    Tensors,
    each_step,
    previous_rows,
    room_for_gradients,
    room_for_states,
    split_masks,
    weight_gradient,
)


class _Tape(NamedTuple):
    """What the steps leave for the way back, besides states.

    Attributes:
        x: [R, 4, H], the projected input of the main gates.
        of_h: [R, 4H + 4A], what h gives to the gates of both LSTMs.
        small_pre: [R, 4A], pre-activations of the small LSTM.
        down: [R, 12 E], the embeddings.
        up: [12 R H], scales and shifts: step after step [12, n, H], which a batched product writes without a copy.
        pre: [R, 4, H], pre-activations of the main LSTM.
    """

    x: Tensor
    of_h: Tensor
    small_pre: Tensor
    down: Tensor
    up: Tensor
    pre: Tensor

    def steps(self, batch_sizes: list[int]) -> "Iterator[_Step]":
        """The same step by step."""
        size, hyper_size = self.pre.shape[2], self.small_pre.shape[1] // 4
        main, small = _split_gates(self.of_h, size)
        fields = (self.x, self.of_h, main, small, self.small_pre, self.small_pre.view(-1, 4, hyper_size), self.down)
        rows = (field.split(batch_sizes) for field in (*fields, self.pre))
        embeddings = _twelve(self.down).split(batch_sizes, dim=1)
        ups = (chunk.view(12, -1, size) for chunk in self.up.split([12 * size * number for number in batch_sizes]))
        return map(_Step, *rows, embeddings, ups)


class _Step(NamedTuple):
    """Views of one step's part of the tape. They are made for all steps at once: where few sequences are left a view
    costs as much as what is computed on it.

    Attributes:
        x, of_h, small_pre, down, pre: as on the tape.
        main_of_h, small_of_h: what h gives to the main gates [n, 4, H], and to the small ones [n, 4A].
        small_gates: small_pre as [n, 4, A].
        embeddings: down as [12, n, E].
        up: [12, n, H].
    """

    x: Tensor
    of_h: Tensor
    main_of_h: Tensor
    small_of_h: Tensor
    small_pre: Tensor
    small_gates: Tensor
    down: Tensor
    pre: Tensor
    embeddings: Tensor
    up: Tensor

    def scales(self) -> Tensor:
        """Scales of the input's gates, scales of the recurrence's, and shifts: [3, n, 4, H]."""
        return self.up.view(3, 4, *self.up.shape[1:]).transpose(1, 2)


class _Gradients(NamedTuple):
    """Gradients of what the steps computed.

    Attributes:
        x: [R, 4, H], of the projected input of the main gates.
        of_h: [R, 4H + 4A], of what h gives to the gates; the last 4A are those of the small LSTM's projected input too.
        down: [R, 12 E], of the embeddings.
        up: [R, 12, H], of scales and shifts; the last four are those of the main pre-activations too.
    """

    x: Tensor
    of_h: Tensor
    down: Tensor
    up: Tensor

    def steps(self, batch_sizes: list[int]) -> "Iterator[_StepGradients]":
        """The same step by step."""
        main, small = _split_gates(self.of_h, self.x.shape[2])
        rows = (field.split(batch_sizes) for field in (self.x, self.of_h, main, small, self.down, *self.up.split(4, 1)))
        twelve = (field.split(batch_sizes, dim=1) for field in (_twelve(self.down), self.up.transpose(0, 1)))
        return map(_StepGradients, *rows, *twelve)


class _StepGradients(NamedTuple):
    """Views of one step's part of the gradients, named as in `_Step`; scale_x, scale_h and shift are parts of up."""

    x: Tensor
    of_h: Tensor
    main_of_h: Tensor
    small_of_h: Tensor
    down: Tensor
    scale_x: Tensor
    scale_h: Tensor
    shift: Tensor
    embeddings: Tensor
    up: Tensor


def _split_gates(rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Rows [R, 4H + 4A] in [R, 4, H] and [R, 4A]."""
    return rows[:, : 4 * size].unflatten(1, (4, size)), rows[:, 4 * size :]


def _twelve(down: Tensor) -> Tensor:
    """Rows [R, 12 E] as [12, R, E]."""
    return down.view(len(down), 12, -1).transpose(0, 1)


def _multiply_into(result: Tensor, first: Tensor, second: Tensor) -> None:
    """The product of two [n, 4, H], into a part of a wider tensor: `out` with gaps, which the compiler refuses."""
    if torch.compiler.is_compiling():
        result.copy_(first * second)
    else:
        torch.mul(first, second, out=result)


class HyperRecurrence:
    """The HyperLSTM; the state's parts are (h, h', c, c').

    Args:
        hidden: [H, 4H + 4A], from h to the gates of the main and the small LSTM. This and the next four are in the type
            in which matrices are multiplied.
        hyper_hidden: [A, 4A], from h' to the small LSTM's gates.
        down: [A, 12 E], from h' to the embeddings.
        down_bias: [12 E].
        up: [12, E, H].
        bias: [4, H], of the main gates, before layer norm.
        norm: of the main LSTM.
        hyper_norm: of the small one.
    """

    def __init__(
        self,
        hidden: Tensor,
        hyper_hidden: Tensor,
        down: Tensor,
        down_bias: Tensor,
        up: Tensor,
        bias: Tensor,
        norm: Norm,
        hyper_norm: Norm,
    ) -> None:
        self.hidden, self.hyper_hidden, self.bias = hidden, hyper_hidden, bias
        self.down, self.down_bias, self.up = down, down_bias, up
        self.norm, self.hyper_norm = norm, hyper_norm
        self.size, self.hyper_size = len(hidden), len(hyper_hidden)

    def run(
        self, projected: Tensor, masks: Tensor | None, state: Tensors, batch_sizes: list[int], has_state: bool
    ) -> Tensors:
        """See `Recurrence.run`."""
        states, tape = room_for_states(state, len(projected)), self._tape(projected)
        all_masks = (split_masks(part, batch_sizes) for part in self._parts_of_masks(masks))
        steps = zip(tape.steps(batch_sizes), *all_masks, each_step(states, batch_sizes), strict=True)
        for number, (step, mask, small_mask, (old, new)) in enumerate(steps):
            self._step(step, mask, small_mask, old, new, number > 0 or has_state)
        return (*states, *tape)

    def step(self, projected: Tensor, mask: Tensor | None, state: Tensors) -> tuple[Tensors, Tensors]:
        """See `StepwiseRecurrence.step`."""
        new, tape = tuple(torch.empty_like(part) for part in state), self._tape(projected)
        (step,) = tape.steps([len(projected)])
        self._step(step, *self._parts_of_masks(mask), state, new, True)
        return new, tuple(tape)

    def _tape(self, projected: Tensor) -> _Tape:
        """Room for what the steps leave, and what does not depend on the state."""
        num_rows = len(projected)
        x, small_x = _split_gates(projected, self.size)
        return _Tape(
            x=x,
            of_h=self.hidden.new_empty(num_rows, self.hidden.shape[1]),
            small_pre=small_x.to(self.bias.dtype, copy=True),
            down=self.down.new_empty(num_rows, self.down.shape[1]),
            up=self.up.new_empty(12 * num_rows * self.size),
            pre=self.bias.new_empty(num_rows, 4, self.size),
        )

    def _step(
        self, step: _Step, mask: Tensor | None, small_mask: Tensor | None, old: Tensors, new: Tensors, has_old: bool
    ) -> None:
        """A step forward, from the old state and into the new one.

        Args:
            step: of the tape, to write into.
            mask, small_mask: [n, H] and [n, A], of the main and the small LSTM, or None.
            old, new: parts of the state, [n, size] each.
            has_old: False promises that the old state is zero.
        """
        if has_old:
            product(old[0].to(self.hidden.dtype), self.hidden, out=step.of_h)
            step.small_pre.add_(step.small_of_h)
            accumulate(step.small_pre, old[1], self.hyper_hidden)
        else:
            step.of_h.zero_()
        gates.step(step.small_gates, old[3], small_mask, self.hyper_norm, new[3], new[1])
        product(new[1].to(self.down.dtype), self.down, self.down_bias, out=step.down)
        torch.bmm(step.embeddings, self.up, out=step.up)
        scale_x, scale_h, shift = step.scales()
        torch.add(shift, self.bias, out=step.pre)
        step.pre.addcmul_(step.x, scale_x).addcmul_(step.main_of_h, scale_h)
        gates.step(step.pre, old[2], mask, self.norm, new[2], new[0])

    def back(
        self,
        grad: Tensor,
        grad_last: Tensors,
        masks: Tensor | None,
        saved: Tensors,
        batch_sizes: list[int],
        has_state: bool,
    ) -> tuple[Tensors, Tensors]:
        """See `Recurrence.back`."""
        tape, cells = _Tape(*saved[4:]), saved[2:4]
        first, previous = batch_sizes[0], previous_rows(batch_sizes, grad.device)
        old, new = (tuple(c[rows] for c in cells) for rows in (previous, slice(first, None)))
        main, small, normed = self._linearize(tape, masks, old, new)
        gradients = self._room_for_gradients(tape)
        grad_h, *others = room_for_gradients(grad, grad_last, first)
        rows = (fields.steps(batch_sizes) for fields in (main, small, tape, gradients))
        views = list(zip(*rows, each_step((grad_h,), batch_sizes), strict=True))
        for number, (main_step, small_step, step, gradient, (grad_old, grad_new)) in reversed(list(enumerate(views))):
            state_gradients = (*grad_new, *(part[: batch_sizes[number]] for part in others))
            grad_small = self._step_back(main_step, small_step, step, gradient, state_gradients)
            if number > 0 or has_state:
                accumulate(grad_old[0], gradient.of_h, self.hidden.t())
                accumulate(state_gradients[1].zero_(), grad_small, self.hyper_hidden.t())
        return (grad_h[:first], *others), (*gradients, main.gates, main.cell, small.gates, small.cell, *normed)

    def step_back(
        self, grad: Tensor, grad_last: Tensors, mask: Tensor | None, old: Tensors, new: Tensors, tape: Tensors
    ) -> tuple[Tensors, Tensors]:
        """See `StepwiseRecurrence.step_back`."""
        tape_of_step = _Tape(*tape)
        main, small, normed = self._linearize(tape_of_step, mask, old[2:], new[2:])
        gradients = self._room_for_gradients(tape_of_step)
        (step,), (gradient,) = tape_of_step.steps([len(grad)]), gradients.steps([len(grad)])
        state_gradients = (grad + grad_last[0], *(part.clone() for part in grad_last[1:]))
        self._step_back(main, small, step, gradient, state_gradients)
        grad_h = product(gradient.of_h, self.hidden.t()).to(grad.dtype)
        grad_small_h = product(gradient.small_of_h, self.hyper_hidden.t()).to(grad.dtype)
        of_step = (*gradients, main.gates, main.cell, small.gates, small.cell, *normed)
        return (grad_h, grad_small_h, *state_gradients[2:]), of_step

    def gradients(
        self, saved: Tensors, of_steps: Tensors, batch_sizes: list[int], has_state: bool
    ) -> tuple[Tensor, Tensors]:
        """See `Recurrence.gradients`."""
        tape, gradients, of_norms = _Tape(*saved[4:]), _Gradients(*of_steps[:4]), of_steps[4:]
        previous = previous_rows(batch_sizes, gradients.x.device)[0 if has_state else batch_sizes[0] :]
        grad_projected = torch.cat([gradients.x.flatten(1), gradients.of_h[:, 4 * self.size :]], dim=1)
        products = self._product_gradients(saved[:4], tape, gradients, previous)
        main, small, normed, small_normed = (of_norms[first : first + 2] for first in range(0, 8, 2))
        norms = (*gates.norm_gradients(*main, *normed), *gates.norm_gradients(*small, *small_normed))
        return grad_projected, (*products, gradients.up[:, 8:].sum(0), *norms)

    def _linearize(
        self, tape: _Tape, masks: Tensor | None, old: Tensors, new: Tensors
    ) -> tuple[Linearized, Linearized, Tensors]:
        """What `gates.linearize` makes of the main and of the small LSTM: the derivatives of both, then the rest.

        Args:
            tape: of some or all steps.
            masks: [R, H], [R, H + A] or None.
            old, new: c [R, H] and c' [R, A], before and after each step.
        """
        mask, small_mask = self._parts_of_masks(masks)
        small_gates = tape.small_pre.view(-1, 4, self.hyper_size)
        main, normed = gates.linearize(tape.pre, old[0], new[0], mask, self.norm)
        small, small_normed = gates.linearize(small_gates, old[1], new[1], small_mask, self.hyper_norm)
        return main, small, (*normed, *small_normed)

    def _room_for_gradients(self, tape: _Tape) -> _Gradients:
        """Of what is on the tape of some or all steps, to write into."""
        return _Gradients(
            x=tape.pre.new_empty(tape.x.shape),
            of_h=torch.empty_like(tape.of_h),
            down=torch.empty_like(tape.down),
            up=tape.up.new_empty(len(tape.x), 12, self.size),
        )

    def _step_back(
        self, main: Linearized, small: Linearized, step: _Step, gradient: _StepGradients, state_gradients: Tensors
    ) -> Tensor:
        """A step backward, all but the products with the transposed weights of h and h'.

        Args:
            main, small: derivatives of the two LSTMs.
            step: of the tape.
            gradient: to write into.
            state_gradients: of the new (h, h', c, c'), c and c' of which become those of the old.

        Returns:
            The gradient [n, 4A] of the small LSTM's pre-activations.
        """
        grad_h, grad_small_h, grad_c, grad_small_c = state_gradients
        scale_x, scale_h, _ = step.scales()
        grad_pre = gates.step_back(main, grad_h, grad_c, self.norm)
        torch.mul(grad_pre, scale_x, out=gradient.x)
        _multiply_into(gradient.main_of_h, grad_pre, scale_h)
        _multiply_into(gradient.scale_x, grad_pre, step.x)
        _multiply_into(gradient.scale_h, grad_pre, step.main_of_h)
        gradient.shift.copy_(grad_pre)
        gradient.embeddings.copy_(gradient.up @ self.up.transpose(1, 2))
        accumulate(grad_small_h, gradient.down, self.down.t())
        grad_small = gates.step_back(small, grad_small_h, grad_small_c, self.hyper_norm).flatten(1)
        gradient.small_of_h.copy_(grad_small)
        return grad_small

    def _product_gradients(self, states: Tensors, tape: _Tape, gradients: _Gradients, previous: Tensor) -> Tensors:
        """Gradients of hidden, hyper_hidden, down, down_bias and up. For previous see `previous_rows`; rows before a
        step whose state is zero may be missing at its beginning."""
        h, small_h = states[:2]
        num_rows = len(gradients.of_h)
        grad_of_h = gradients.of_h[num_rows - len(previous) :]
        return (
            weight_gradient(h[previous], grad_of_h, self.hidden),
            weight_gradient(small_h[previous], grad_of_h[:, 4 * self.size :], self.hyper_hidden),
            weight_gradient(small_h[len(h) - num_rows :], gradients.down, self.down),
            gradients.down.sum(0),
            _twelve(tape.down).transpose(1, 2) @ gradients.up.transpose(0, 1),
        )

    def _parts_of_masks(self, masks: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Masks of the main LSTM and, where it has any, of the small one, from [R, H] or [R, H + A]."""
        if masks is None or masks.shape[1] == self.size:
            return masks, None
        return masks[:, : self.size], masks[:, self.size :]
