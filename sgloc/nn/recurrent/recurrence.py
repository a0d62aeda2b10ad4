"""Recurrences over ragged sequences, and back through time, written out by hand (METHOD 5 and 6).

Automatic differentiation adds up a weight's gradient step by step, each time by a thin product and a pass over the
whole matrix; here it is one product over all steps. What is left to a step is what truly waits for its neighbour. A
first state that is not given is zero, and products with it are not computed.

Shapes: n sequences, R steps of all sequences together, time-major; H units of the cell. States are kept as
[n + R, size]: the first n rows hold the first state, then there is one row a step.
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
# The old states of the sequences that have a step, and where their new ones stand, part by part.
OldAndNew = tuple[Tensors, Tensors]


class Steps(NamedTuple):
    """The steps of n sequences.

    Attributes:
        sizes: how many sequences have a step t; the first is n.
        has_state: False promises that the first state is zero.
    """

    sizes: list[int]
    has_state: bool

    @property
    def num_idle(self) -> int:
        """Rows at the beginning whose state before them is zero."""
        return 0 if self.has_state else self.sizes[0]

    def split(self, masks: Tensor | None) -> Tensors | list[None]:
        """Dropout masks [R, mask size], if there are any, step by step."""
        return [None] * len(self.sizes) if masks is None else masks.split(self.sizes)

    def states(self, states: Tensors) -> Iterator[OldAndNew]:
        """Views of the states [n + R, size], step by step."""
        before, *rest = zip(*(part.split([self.sizes[0], *self.sizes]) for part in states), strict=True)
        for size, after in zip(self.sizes, rest, strict=True):
            yield tuple(part[:size] for part in before), after
            before = after

    def before(self, states: Tensor) -> Tensor:
        """Of states [n + R, size] those before each of the R steps, [R, size]."""
        return torch.cat([old for (old,), _ in self.states((states,))])


class Saved(NamedTuple):
    """What some or all steps leave for the way back.

    Attributes:
        old, new: the states before and after each step, [R, size], part by part; the output h is the first part.
        tape: what else the recurrence returned.
    """

    old: Tensors
    new: Tensors
    tape: Tensors


class Recurrence:
    """What a cell does besides projecting its inputs."""

    def run(self, projected: Tensor, masks: Tensor | None, state: Tensors, steps: Steps) -> Tensors:
        """All steps.

        Args:
            projected: [R, G].
            masks: [R, mask size], recurrent dropout, or None.
            state: parts of the first state, [n, size] each, the longest sequence first; the output h is the first part.
            steps: which they are.

        Returns:
            The states [n + R, size], part by part; then the tape.
        """
        states = tuple(torch.cat([part, part.new_empty(len(projected), part.shape[1])]) for part in state)
        return (*states, *self.forward(projected, masks, steps.states(states), steps))

    def step(self, projected: Tensor, mask: Tensor | None, state: Tensors) -> tuple[Tensors, Tensors]:
        """One step, as a function: what is given is not written to.

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
        """All steps, from old states into new ones.

        Args:
            projected, masks, steps: see `run`.
            states: step by step.

        Returns:
            The tape.
        """
        raise NotImplementedError

    def back(
        self, grad: Tensor, grad_last: Tensors, masks: Tensor | None, saved: Saved, steps: Steps
    ) -> tuple[Tensors, Tensors]:
        """Back through all steps.

        Args:
            grad: [R, H], gradient of the outputs.
            grad_last: parts of the gradient of the last step's state, without what comes by way of the output.
            masks, steps: as given to `run`.
            saved: of all steps.

        Returns:
            Gradients of the first state's parts, of any value if that is zero; and what `gradients` asks for, in which
            step follows on step.
        """
        raise NotImplementedError

    def gradients(self, saved: Saved, of_steps: Tensors, steps: Steps) -> tuple[Tensor, Tensors]:
        """What is left to do for all steps at once, when they have gone back.

        Args:
            saved, steps: as given to `back`.
            of_steps: what `back` returned last.

        Returns:
            Gradients of `projected`, and of the weights that the recurrence was made of.
        """
        raise NotImplementedError


def weight_gradient(rows: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of weight [A, B], from all steps' inputs [R, A] and output gradients [R, B]."""
    return product(rows.to(weight.dtype).t(), grad.to(weight.dtype))


def with_zeros(part: Tensor, num_rows: int) -> Tensor:
    """Rows [n, size], and zeros below them: [num_rows, size]; always anew, for a compiled graph is made of a tensor's
    strides too."""
    return torch.cat([part, part.new_zeros(num_rows - len(part), part.shape[1])])


def room_for_gradients(grad: Tensor, grad_last: Tensors, steps: Steps) -> tuple[Tensors, list[Tensor]]:
    """Gradients to go back with: of the outputs, step by step; and of the other parts of the state [n, size], which
    hold those of the step just gone through. For the arguments see `Recurrence.back`."""
    grad_h = grad.clone(memory_format=torch.contiguous_format)
    grad_h[len(grad_h) - len(grad_last[0]) :] += grad_last[0]
    return grad_h.split(steps.sizes), [with_zeros(part, steps.sizes[0]) for part in grad_last[1:]]


class LSTMRecurrence(Recurrence):
    """The LSTM and the layer-norm LSTM; the state's parts are (h, c).

    Args:
        weights: hidden [H, 4H], in the type in which matrices are multiplied; then the bias of the gates [4H], the
            forget bias included, or what `Norm` holds.
    """

    def __init__(self, weights: Tensors) -> None:
        self.hidden, *others = weights
        self.bias = others[0] if len(others) == 1 else None
        self.norm = Norm(*others) if self.bias is None else None
        self.size, self.dtype = len(self.hidden), others[0].dtype

    def forward(self, projected: Tensor, masks: Tensor | None, states: Iterable[OldAndNew], steps: Steps) -> Tensors:
        """See `Recurrence.forward`."""
        # What does not depend on h.
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
            # The gradients stand where the derivatives stood.
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
    """Run a recurrence over sequences, differentiably, but only once.

    Args:
        make: makes the recurrence of the weights.
        weights: for `make`.
        projected, masks, state, steps: see `Recurrence.run`.
        segment: keep only each so manieth step's state for the backward pass, and compute the steps between again.

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
