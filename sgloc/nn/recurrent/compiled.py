"""Recurrences whose steps are compiled to a few kernels each by torch.compile.

Meant for CUDA, where an eager step is dozens of small kernels that take longer to launch than to run.

A compiled step serves one batch size. To keep the number of sizes small, sequences that have ended continue over zeros
for some steps; these outputs are never read, so no gradient flows back from them.

Shapes as in `sgloc.nn.recurrent.recurrence`.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sgloc.nn.recurrent.recurrence import Make, Recurrence, Saved, Steps, Tensors, with_zeros
from sgloc.torch_versions import compile_whole

# `round_up` has fewer distinct values for batch sizes up to a hundred million.
_MOST_GRAPHS = 64


def round_up(batch_size: int) -> int:
    """Round a batch size of at least 1 up to one of 1, 2, 3, 4, 6, 8, 12, 16, 24, and so on.

    With batches of 100 real drawings this leaves 14 sizes in the decoder and 19 in the encoder, for a fifth more rows.
    Twice as many sizes would add a tenth, powers of two nearly a half. Extra rows are cheap where launches dominate,
    while each extra size takes seconds to compile.
    """
    unit = 1 << max(0, (batch_size - 1).bit_length() - 2)
    return -(-batch_size // unit) * unit


def padded(steps: Steps, device: torch.device) -> tuple[Steps, Tensor]:
    """Round the batch size of every step up; also return the new position of each original row, int64 [R]."""
    sizes, new_sizes = torch.tensor(steps.sizes), list(map(round_up, steps.sizes))
    added = torch.tensor(new_sizes) - sizes
    rows = torch.arange(int(sizes.sum())) + torch.repeat_interleave(torch.cumsum(added, 0) - added, sizes)
    return Steps(new_sizes, steps.has_state), rows.to(device, non_blocking=True)


def pad(values: Tensor, steps: Steps, rows: Tensor) -> Tensor:
    """Place rows [R, size] at the positions that `padded` returned, with zeros between them."""
    return values.new_zeros(sum(steps.sizes), values.shape[1]).index_copy(0, rows, values)


class CompiledSteps:
    """The compiled forward and backward steps of a model's cells; cells of the same sizes share the compiled graphs.

    Args:
        backend: torch.compile backend.
    """

    def __init__(self, backend: str | Callable[..., object]) -> None:
        # torch.compile recommends TF32, which is the user's choice (train.tf32).
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        self.forward = compile_whole(_step, backend, _MOST_GRAPHS)
        self.back = compile_whole(_step_back, backend, _MOST_GRAPHS)


class CompiledRecurrence(Recurrence):
    """A recurrence that runs compiled steps. It expects steps from `padded`, and always needs masks.

    Args:
        compiled: the compiled steps.
        make: builds the plain recurrence from the weights; must always be the same object, because the compiled graph
            is specialised on it.
        weights: passed to `make`.
    """

    def __init__(self, compiled: CompiledSteps, make: Make, weights: Tensors) -> None:
        self.compiled, self.make = compiled, make
        # Detached in training and evaluation alike: weights that require gradients would get graphs of their own.
        self.weights = tuple(weight.detach() for weight in weights)

    def run(self, projected: Tensor, masks: Tensor | None, state: Tensors, steps: Steps) -> Tensors:
        """See `Recurrence.run`."""
        # Detached because torch.compile inspects the base tensor of a view, and warns about what it finds.
        states, tapes = [tuple(part.detach() for part in state)], []
        for inputs, mask in zip(projected.detach().split(steps.sizes), steps.split(masks), strict=True):
            old = tuple(part[: len(inputs)] for part in states[-1])
            new, tape = self.compiled.forward(self.make, self.weights, inputs, mask, old)
            states.append(new)
            tapes.append(tape)
        return *_join(states), *_join(tapes)

    def back(
        self, grad: Tensor, grad_last: Tensors, masks: Tensor | None, saved: Saved, steps: Steps
    ) -> tuple[Tensors, Tensors]:
        """See `Recurrence.back`."""

        def split(parts: Tensors) -> Iterator[Tensors]:
            # A sequence leaves the same number of elements on the tape at every step.
            sizes = ([len(part) // len(grad) * size for size in steps.sizes] for part in parts)
            return zip(*map(torch.split, parts, sizes), strict=True)

        each = zip(grad.split(steps.sizes), steps.split(masks), *map(split, saved), strict=True)
        grad_state, of_steps = grad_last, []
        for step_grad, mask, *step_saved in reversed(list(each)):
            last = tuple(with_zeros(part, len(step_grad)) for part in grad_state)
            grad_state, of_step = self.compiled.back(self.make, self.weights, step_grad, last, mask, Saved(*step_saved))
            of_steps.append(of_step)
        return grad_state, _join(of_steps[::-1])

    def gradients(self, saved: Saved, of_steps: Tensors, steps: Steps) -> tuple[Tensor, Tensors]:
        """See `Recurrence.gradients`."""
        return self.make(self.weights).gradients(saved, of_steps, steps)


def _join(steps: list[Tensors]) -> Tensors:
    """Concatenate the results of all steps, part by part."""
    return tuple(torch.cat(parts) for parts in zip(*steps, strict=True))


# torch.compile makes one graph of each of the next two functions per batch size.


def _step(make: Make, weights: Tensors, inputs: Tensor, mask: Tensor | None, old: Tensors) -> tuple[Tensors, Tensors]:
    """See `Recurrence.step`."""
    return make(weights).step(inputs, mask, old)


def _step_back(
    make: Make, weights: Tensors, grad: Tensor, grad_last: Tensors, mask: Tensor | None, saved: Saved
) -> tuple[Tensors, Tensors]:
    """See `Recurrence.back`."""
    return make(weights).back(grad, grad_last, mask, saved, Steps([len(grad)], True))
