"""Recurrences over ragged sequences, and back through time, written out by hand (METHOD 5 and 6).

Automatic differentiation adds up a weight's gradient step by step, each time by a thin product and a pass over the
whole matrix; here it is one product over all steps. What is left to a step is what truly waits for its neighbour. A
first state that is not given is zero, and products with it are not computed.

Shapes: n sequences, R steps of all sequences together, time-major; H units of the cell. States are kept as
[n + R, size]: the first n rows hold the first state, then there is one row a step.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgloc.nn.product import accumulate, product
from sgloc.nn.recurrent import gates
from sgloc.nn.recurrent.gates import Norm

Tensors = tuple[Tensor, ...]


class Recurrence(Protocol):
    """What a cell does besides projecting its inputs."""

    def run(
        self, projected: Tensor, masks: Tensor | None, state: Tensors, batch_sizes: list[int], has_state: bool
    ) -> Tensors:
        """All steps.

        Args:
            projected: [R, G].
            masks: [R, mask size], recurrent dropout, or None.
            state: parts of the first state, [n, size] each, the longest sequence first; the output h is the first part.
            batch_sizes: how many sequences have a step t.
            has_state: False promises that the state is zero.

        Returns:
            The states [n + R, size], part by part; then whatever else `back` asks for.
        """
        ...

    def back(
        self,
        grad: Tensor,
        grad_last: Tensors,
        masks: Tensor | None,
        saved: Tensors,
        batch_sizes: list[int],
        has_state: bool,
    ) -> tuple[Tensors, Tensors]:
        """Back through all steps.

        Args:
            grad: [R, H], gradient of the outputs.
            grad_last: parts of the gradient of the last step's state, as far as it does not come by way of the output.
            masks: as given to `run`, as are `batch_sizes` and `has_state`.
            saved: what `run` returned.

        Returns:
            Gradients of the first state's parts; and what `gradients` asks for, in which step follows on step.
        """
        ...

    def gradients(
        self, saved: Tensors, of_steps: Tensors, batch_sizes: list[int], has_state: bool
    ) -> tuple[Tensor, Tensors]:
        """What is left to do for all steps at once, when they have gone back.

        Args:
            saved: what `run` returned.
            of_steps: what `back` returned last.
            batch_sizes, has_state: as given to `run`.

        Returns:
            Gradients of `projected`, and of the weights that the recurrence was made of.
        """
        ...


class StepwiseRecurrence(Recurrence, Protocol):
    """A recurrence that can take a step alone, as a function: what is given is not written to."""

    def step(self, projected: Tensor, mask: Tensor | None, state: Tensors) -> tuple[Tensors, Tensors]:
        """One step.

        Args:
            projected: [n, G].
            mask: [n, mask size] or None.
            state: parts of the old state, [n, size] each.

        Returns:
            The new state, and this step's part of what else `run` returns.
        """
        ...

    def step_back(
        self, grad: Tensor, grad_last: Tensors, mask: Tensor | None, old: Tensors, new: Tensors, tape: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Back through one step.

        Args:
            grad: [n, H], gradient of the output.
            grad_last: [n, size] each, gradient of the new state as far as it does not come by way of this output.
            mask: as given to `step`.
            old, new: the state before and after it.
            tape: what else `step` returned.

        Returns:
            What `back` does, of this step.
        """
        ...


def weight_gradient(rows: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of weight [A, B], from all steps' inputs [R, A] and output gradients [R, B]."""
    return product(rows.to(weight.dtype).t(), grad.to(weight.dtype))


def room_for_states(state: Tensors, num_rows: int) -> Tensors:
    """The first state's parts [n, size], with room for a row a step below: [n + R, size]."""
    return tuple(torch.cat([part, part.new_empty(num_rows, part.shape[1])]) for part in state)


def room_for_gradients(grad: Tensor, grad_last: Tensors, first: int) -> Tensors:
    """Gradients to go back with: of all outputs [n + R, H], the first n rows for the first state's; and of the other
    parts of the state [n, size], which hold those of the step just gone through.

    Args:
        grad: [R, H], of the outputs.
        grad_last: of the last step's state, part by part.
        first: n.
    """
    grad_h = torch.cat([grad.new_zeros(first, grad.shape[1]), grad])
    grad_h[len(grad_h) - len(grad_last[0]) :] += grad_last[0]
    others = (torch.cat([part, part.new_zeros(first - len(part), part.shape[1])]) for part in grad_last[1:])
    return grad_h, *others


def previous_rows(batch_sizes: list[int], device: torch.device) -> Tensor:
    """For each of R rows the row of a state [n + R, size] that holds the state before it; int64 [R].

    Args:
        batch_sizes: how many sequences have a step t; the first is n.
        device: for the result.
    """
    sizes = torch.tensor(batch_sizes)
    before = torch.cat([sizes[:1], sizes[:-1]])
    result = torch.arange(int(sizes.sum())) + torch.repeat_interleave(sizes[0] - before, sizes)
    return result.to(device, non_blocking=True)


def each_step(states: Tensors, batch_sizes: list[int]) -> Iterator[tuple[Tensors, Tensors]]:
    """For each step, as views, the old states of the sequences that have it, and where their new ones stand.

    Args:
        states: [n + R, size], part by part.
        batch_sizes: how many sequences have a step t.
    """
    before, *rest = zip(*(part.split([batch_sizes[0], *batch_sizes]) for part in states), strict=True)
    for size, after in zip(batch_sizes, rest, strict=True):
        yield tuple(part[:size] for part in before), after
        before = after


def split_masks(masks: Tensor | None, batch_sizes: list[int]) -> Tensors | list[None]:
    """Dropout masks [R, mask size], if there are any, step by step."""
    return [None] * len(batch_sizes) if masks is None else masks.split(batch_sizes)


class LSTMRecurrence:
    """The LSTM and the layer-norm LSTM; the state's parts are (h, c).

    Args:
        hidden: [H, 4H], in the type in which matrices are multiplied.
        bias: [4H], of the gates, the forget bias included; None with layer norm.
        norm: the layer norm, if there is one.
    """

    def __init__(self, hidden: Tensor, bias: Tensor | None, norm: Norm | None) -> None:
        self.hidden, self.bias, self.norm = hidden, bias, norm
        self.size = len(hidden)

    def run(
        self, projected: Tensor, masks: Tensor | None, state: Tensors, batch_sizes: list[int], has_state: bool
    ) -> Tensors:
        """See `Recurrence.run`."""
        states = room_for_states(state, len(projected))
        pre = self._pre(projected, states[0].dtype)
        steps = zip(
            pre.split(batch_sizes), split_masks(masks, batch_sizes), each_step(states, batch_sizes), strict=True
        )
        for number, (step_pre, mask, ((h, c), (new_h, new_c))) in enumerate(steps):
            if number > 0 or has_state:
                accumulate(step_pre, h, self.hidden)
            gates.step(step_pre.view(-1, 4, self.size), c, mask, self.norm, new_c, new_h)
        return (*states, pre)

    def step(self, projected: Tensor, mask: Tensor | None, state: Tensors) -> tuple[Tensors, Tensors]:
        """See `StepwiseRecurrence.step`."""
        h, c = state
        pre, new_h, new_c = self._pre(projected, c.dtype), torch.empty_like(h), torch.empty_like(c)
        accumulate(pre, h, self.hidden)
        gates.step(pre.view(-1, 4, self.size), c, mask, self.norm, new_c, new_h)
        return (new_h, new_c), (pre,)

    def _pre(self, projected: Tensor, dtype: torch.dtype) -> Tensor:
        """Pre-activations of the gates, as far as they do not depend on h, to write into."""
        return projected.to(dtype, copy=True) if self.bias is None else projected + self.bias

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
        _, c, pre = saved
        first, previous = batch_sizes[0], previous_rows(batch_sizes, grad.device)
        derivatives, normed = gates.linearize(pre.view(-1, 4, self.size), c[previous], c[first:], masks, self.norm)
        grad_h, grad_c = room_for_gradients(grad, grad_last, first)
        grads = []
        views = list(zip(derivatives.steps(batch_sizes), each_step((grad_h,), batch_sizes), strict=True))
        for number, (step, ((grad_old_h,), (grad_new_h,))) in reversed(list(enumerate(views))):
            grad_step = gates.step_back(step, grad_new_h, grad_c[: batch_sizes[number]], self.norm).flatten(1)
            if number > 0 or has_state:
                accumulate(grad_old_h, grad_step, self.hidden.t())
            grads.append(grad_step)
        # Without layer norm the gradients stand where the derivatives stood.
        grad_pre = derivatives.gates.flatten(1) if self.norm is None else torch.cat(grads[::-1])
        of_norm = () if self.norm is None else (derivatives.gates, derivatives.cell, *normed)
        return (grad_h[:first], grad_c), (grad_pre, *of_norm)

    def step_back(
        self, grad: Tensor, grad_last: Tensors, mask: Tensor | None, old: Tensors, new: Tensors, tape: Tensors
    ) -> tuple[Tensors, Tensors]:
        """See `StepwiseRecurrence.step_back`."""
        derivatives, normed = gates.linearize(tape[0].view(-1, 4, self.size), old[1], new[1], mask, self.norm)
        grad_c = grad_last[1].clone()
        grad_pre = gates.step_back(derivatives, grad + grad_last[0], grad_c, self.norm).flatten(1)
        of_norm = () if self.norm is None else (derivatives.gates, derivatives.cell, *normed)
        return (product(grad_pre.to(self.hidden.dtype), self.hidden.t()).to(grad.dtype), grad_c), (grad_pre, *of_norm)

    def gradients(
        self, saved: Tensors, of_steps: Tensors, batch_sizes: list[int], has_state: bool
    ) -> tuple[Tensor, Tensors]:
        """See `Recurrence.gradients`."""
        grad_pre, *of_norm = of_steps
        skipped = 0 if has_state else batch_sizes[0]
        previous = previous_rows(batch_sizes, grad_pre.device)[skipped:]
        grad_hidden = weight_gradient(saved[0][previous], grad_pre[skipped:], self.hidden)
        others = (grad_pre.sum(0),) if self.norm is None else gates.norm_gradients(*of_norm)
        return grad_pre, (grad_hidden, *others)


class _ThroughTime(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        make: Callable[[Tensors], Recurrence],
        num_weights: int,
        batch_sizes: list[int],
        has_state: bool,
        projected: Tensor,
        masks: Tensor | None,
        *tensors: Tensor,
    ) -> Tensors:
        weights, state = tensors[:num_weights], tensors[num_weights:]
        with torch.autocast(projected.device.type, enabled=False):
            saved = make(weights).run(projected, masks, state, batch_sizes, has_state)
        ctx.make, ctx.num_weights, ctx.batch_sizes, ctx.has_state = make, num_weights, batch_sizes, has_state
        ctx.save_for_backward(masks, *weights, *saved)
        last = (states[len(states) - batch_sizes[-1] :].clone() for states in saved[: len(state)])
        return saved[0][batch_sizes[0] :], *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *grad_last: Tensor) -> tuple[Tensor | None, ...]:
        masks, *tensors = ctx.saved_tensors
        weights, saved = tuple(tensors[: ctx.num_weights]), tuple(tensors[ctx.num_weights :])
        with torch.autocast(grad.device.type, enabled=False):
            recurrence = ctx.make(weights)
            grad_state, of_steps = recurrence.back(grad, grad_last, masks, saved, ctx.batch_sizes, ctx.has_state)
            grad_projected, grad_weights = recurrence.gradients(saved, of_steps, ctx.batch_sizes, ctx.has_state)
        return None, None, None, None, grad_projected, None, *grad_weights, *grad_state


def through_time(
    make: Callable[[Tensors], Recurrence],
    weights: Tensors,
    projected: Tensor,
    masks: Tensor | None,
    state: Tensors,
    batch_sizes: list[int],
    has_state: bool,
) -> Tensors:
    """Run a recurrence over sequences, differentiably, but only once.

    Args:
        make: makes the recurrence of the weights.
        weights: for `make`.
        projected: [R, G], time-major.
        masks: [R, mask size], recurrent dropout, time-major; None for none.
        state: parts of the first state, [n, size] each, the longest sequence first.
        batch_sizes: how many sequences have a step t.
        has_state: False promises that the state is zero.

    Returns:
        The outputs [R, H], time-major; then the parts of the last step's state.
    """
    result: Tensors = _ThroughTime.apply(  # type: ignore[no-untyped-call]
        make, len(weights), batch_sizes, has_state, projected, masks, *weights, *state
    )
    return result
