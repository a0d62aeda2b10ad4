"""Recurrences over ragged sequences, with backpropagation through time written by hand (METHOD 5 and 6).

Autograd accumulates a weight's gradient step by step, each time with a thin product and a pass over the whole matrix;
here it is one product over all steps. A step computes only what depends on the neighbouring step. Without an initial
state the state starts at zero, and products with it are skipped.

Shapes: n sequences, R steps over all sequences, time-major; H hidden units. States are stored as [n + R, size]: n rows
of initial states, then one row per step.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgloc.nn.product import accumulate, product
from sgloc.nn.recomputed import recomputed
from sgloc.nn.recurrent import gates
from sgloc.nn.recurrent.gates import Norm

Tensors = tuple[Tensor, ...]
# The old states of the sequences that have the current step, and the views that receive their new states, part by part.
OldAndNew = tuple[Tensors, Tensors]


class Steps(NamedTuple):
    """The steps of n sequences.

    Attributes:
        sizes: number of sequences that have each step; the first is n.
        has_state: whether there is an initial state; False guarantees that it is zero.
    """

    sizes: list[int]
    has_state: bool

    @property
    def num_idle(self) -> int:
        """Number of leading rows whose old state is known to be zero."""
        return 0 if self.has_state else self.sizes[0]

    def split(self, masks: Tensor | None) -> Tensors | list[None]:
        """Split dropout masks [R, mask size] into steps; without masks, return None for every step."""
        return [None] * len(self.sizes) if masks is None else masks.split(self.sizes)

    def states(self, states: Tensors) -> Iterator[OldAndNew]:
        """Yield views of the states [n + R, size] before and after each step."""
        before, *rest = zip(*(part.split([self.sizes[0], *self.sizes]) for part in states), strict=True)
        for size, after in zip(self.sizes, rest, strict=True):
            yield tuple(part[:size] for part in before), after
            before = after

    def before(self, states: Tensor) -> Tensor:
        """Select the state before each of the R steps, [R, size], from states [n + R, size]."""
        return torch.cat([old for (old,), _ in self.states((states,))])


class Saved(NamedTuple):
    """What some or all steps save for the backward pass.

    Attributes:
        old, new: the states before and after each step, [R, size], part by part; the output h is the first part.
        tape: the other tensors that the recurrence returned.
    """

    old: Tensors
    new: Tensors
    tape: Tensors


class Recurrence:
    """The recurrent part of a cell: everything except the projection of its inputs."""

    def run(self, projected: Tensor, masks: Tensor | None, state: Tensors, steps: Steps) -> Tensors:
        """Run all steps.

        Args:
            projected: [R, G], projected inputs.
            masks: [R, mask size], recurrent dropout masks, or None.
            state: parts of the initial state, [n, size] each, longest sequence first; the output h is the first part.
            steps: the steps of the n sequences.

        Returns:
            The states [n + R, size], part by part, followed by the tape.
        """
        states = tuple(torch.cat([part, part.new_empty(len(projected), part.shape[1])]) for part in state)
        return (*states, *self.forward(projected, masks, steps.states(states), steps))

    def step(self, projected: Tensor, mask: Tensor | None, state: Tensors) -> tuple[Tensors, Tensors]:
        """Run one step as a pure function: no argument is written to.

        Args:
            projected: [n, G].
            mask: [n, mask size] or None.
            state: parts of the old state, [n, size] each.

        Returns:
            The new state, and the tape.
        """
        new = tuple(torch.empty_like(part) for part in state)
        return new, self.forward(projected, mask, [(state, new)], Steps([len(projected)], True))

    def forward(self, projected: Tensor, masks: Tensor | None, states: Iterable[OldAndNew], steps: Steps) -> Tensors:
        """Run all steps, reading the old states and writing the new ones.

        Args:
            projected, masks, steps: see `run`.
            states: the old and new states of each step.

        Returns:
            The tape.
        """
        raise NotImplementedError

    def back(
        self, grad: Tensor, grad_last: Tensors, masks: Tensor | None, saved: Saved, steps: Steps
    ) -> tuple[Tensors, Tensors]:
        """Go back through all steps.

        Args:
            grad: [R, H], gradient of the outputs.
            grad_last: parts of the gradient of the last step's state, excluding the part that flows through the
                outputs.
            masks, steps: as passed to `run`.
            saved: saved tensors of all steps.

        Returns:
            Gradients of the parts of the initial state, with arbitrary values if there is none; and the per-step
            tensors that `gradients` needs, concatenated in time order.
        """
        raise NotImplementedError

    def gradients(self, saved: Saved, of_steps: Tensors, steps: Steps) -> tuple[Tensor, Tensors]:
        """Compute the gradients that need all steps at once, after `back`.

        Args:
            saved, steps: as passed to `back`.
            of_steps: the per-step tensors that `back` returned.

        Returns:
            Gradients of `projected`, and of the weights that the recurrence was built from.
        """
        raise NotImplementedError


def weight_gradient(rows: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Compute the gradient of weight [A, B] from the inputs [R, A] and output gradients [R, B] of all steps."""
    return product(rows.to(weight.dtype).t(), grad.to(weight.dtype))


def with_zeros(part: Tensor, num_rows: int) -> Tensor:
    """Append zero rows to rows [n, size]: [num_rows, size].

    Always makes a new contiguous tensor, because a compiled graph is specialised on strides too.
    """
    return torch.cat([part, part.new_zeros(num_rows - len(part), part.shape[1])])


def room_for_gradients(grad: Tensor, grad_last: Tensors, steps: Steps) -> tuple[Tensors, list[Tensor]]:
    """Allocate the gradients that the backward pass updates. For the arguments see `Recurrence.back`.

    Returns:
        Gradients of the outputs, step by step; and of the other parts of the state, [n, size] each, which hold those of
        the step processed last.
    """
    grad_h = grad.clone(memory_format=torch.contiguous_format)
    grad_h[len(grad_h) - len(grad_last[0]) :] += grad_last[0]
    return grad_h.split(steps.sizes), [with_zeros(part, steps.sizes[0]) for part in grad_last[1:]]


class LSTMRecurrence(Recurrence):
    """Recurrence of the LSTM and the layer-norm LSTM; the state's parts are (h, c).

    Args:
        weights: hidden [H, 4H], in the dtype used for matrix products; then the gate bias [4H], including the forget
            bias, or the fields of `Norm`.
    """

    def __init__(self, weights: Tensors) -> None:
        self.hidden, *others = weights
        self.bias = others[0] if len(others) == 1 else None
        self.norm = Norm(*others) if self.bias is None else None
        self.size, self.dtype = len(self.hidden), others[0].dtype

    def forward(self, projected: Tensor, masks: Tensor | None, states: Iterable[OldAndNew], steps: Steps) -> Tensors:
        """See `Recurrence.forward`."""
        pre = projected.to(self.dtype, copy=True) if self.bias is None else projected + self.bias
        views = zip(pre.split(steps.sizes), steps.split(masks), states, strict=True)
        for number, (step_pre, mask, ((h, c), (new_h, new_c))) in enumerate(views):
            if number > 0 or steps.has_state:
                accumulate(step_pre, h, self.hidden)
            gates.step(step_pre.view(-1, 4, self.size), c, mask, self.norm, new_c, new_h)
        return (pre,)

    def back(
        self, grad: Tensor, grad_last: Tensors, masks: Tensor | None, saved: Saved, steps: Steps
    ) -> tuple[Tensors, Tensors]:
        """See `Recurrence.back`."""
        pre = saved.tape[0].view(-1, 4, self.size)
        derivatives, normed = gates.linearize(pre, saved.old[1], saved.new[1], masks, self.norm)
        grad_h, (grad_c,) = room_for_gradients(grad, grad_last, steps)
        grads: list[Tensor] = []
        for number, step in reversed(list(enumerate(derivatives.steps(steps.sizes)))):
            size = steps.sizes[number]
            grads.append(gates.step_back(step, grad_h[number], grad_c[:size], self.norm).flatten(1))
            if number > 0:
                accumulate(grad_h[number - 1][:size], grads[-1], self.hidden.t())
        grad_first = grad_h[0]
        if steps.has_state:
            grad_first = product(grads[-1].to(self.hidden.dtype), self.hidden.t()).to(grad.dtype)
        if self.norm is None:
            # `step_back` wrote the gradients over the derivatives.
            return (grad_first, grad_c), (derivatives.gates.flatten(1),)
        return (grad_first, grad_c), (torch.cat(grads[::-1]), derivatives.gates, derivatives.cell, *normed)

    def gradients(self, saved: Saved, of_steps: Tensors, steps: Steps) -> tuple[Tensor, Tensors]:
        """See `Recurrence.gradients`."""
        grad_pre, *of_norm = of_steps
        grad_hidden = weight_gradient(saved.old[0][steps.num_idle :], grad_pre[steps.num_idle :], self.hidden)
        others = (grad_pre.sum(0),) if self.norm is None else gates.norm_gradients(*of_norm)
        return grad_pre, (grad_hidden, *others)


Make = Callable[[Tensors], Recurrence]


class _ThroughTime(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, make: Make, num_weights: int, steps: Steps, projected: Tensor, masks: Tensor | None, *tensors: Tensor
    ) -> Tensors:
        weights, state = tensors[:num_weights], tensors[num_weights:]
        with torch.autocast(projected.device.type, enabled=False):
            saved = make(weights).run(projected, masks, state, steps)
        ctx.make, ctx.num_weights, ctx.steps = make, num_weights, steps
        ctx.save_for_backward(masks, *weights, *saved)
        last = (states[len(states) - steps.sizes[-1] :].clone() for states in saved[: len(state)])
        return saved[0][steps.sizes[0] :], *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *grad_last: Tensor) -> tuple[Tensor | None, ...]:
        masks, *tensors = ctx.saved_tensors
        weights, saved = tuple(tensors[: ctx.num_weights]), tensors[ctx.num_weights :]
        states, tape = saved[: len(grad_last)], tuple(saved[len(grad_last) :])
        steps: Steps = ctx.steps
        with torch.autocast(grad.device.type, enabled=False):
            recurrence = ctx.make(weights)
            new = tuple(part[steps.sizes[0] :] for part in states)
            record = Saved(tuple(map(steps.before, states)), new, tape)
            grad_state, of_steps = recurrence.back(grad, grad_last, masks, record, steps)
            grad_projected, grad_weights = recurrence.gradients(record, of_steps, steps)
        return None, None, None, grad_projected, None, *grad_weights, *grad_state


def through_time(
    make: Make,
    weights: Tensors,
    projected: Tensor,
    masks: Tensor | None,
    state: Tensors,
    steps: Steps,
    segment: int | None = None,
) -> Tensor:
    """Run a recurrence over sequences; differentiable once.

    Args:
        make: builds the recurrence from the weights.
        weights: passed to `make`.
        projected, masks, state, steps: see `Recurrence.run`.
        segment: number of steps between the states kept for the backward pass, which recomputes the steps in between;
            None keeps every step.

    Returns:
        The outputs [R, H], time-major.
    """
    apply: Callable[..., Tensors] = _ThroughTime.apply
    if segment is None:
        return apply(make, len(weights), steps, projected, masks, *weights, *state)[0]
    outputs = []
    for start in range(0, len(steps.sizes), segment):
        part = Steps(steps.sizes[start : start + segment], steps.has_state or start > 0)
        rows = slice(sum(steps.sizes[:start]), sum(steps.sizes[: start + segment]))
        part_masks = None if masks is None else masks[rows]
        first = (values[: part.sizes[0]] for values in state)
        results = recomputed(apply, make, len(weights), part, projected[rows], part_masks, *weights, *first)
        outputs.append(results[0])
        state = results[1:]
    return torch.cat(outputs)
