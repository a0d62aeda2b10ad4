"""Recurrences whose steps torch.compile has made into a few kernels each: for CUDA, where a step is dozens of small
kernels that take longer to launch than to run.

A compiled step is made for one batch size. So that few sizes occur, sequences that have ended go on for a while, over
zeros: nobody reads what they give, so no gradient comes back from there.

Shapes as in `sgloc.nn.recurrent.recurrence`.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sgloc.nn.recurrent.recurrence import Make, Recurrence, Saved, Steps, Tensors, with_zeros
from sgloc.torch_versions import compile_whole

# Batch sizes up to a hundred million have fewer values.
_MOST_GRAPHS = 64


def round_up(batch_size: int) -> int:
    """The batch size, at least 1, rounded up to one of 1, 2, 3, 4, 6, 8, 12, 16, 24, and so on.

    Over 100 real drawings at a time this makes 14 sizes of the decoder's and 19 of the encoder's, for a fifth more
    rows. Twice as many sizes would add a tenth, and powers of two nearly a half; a row more is cheap where launches
    are what takes time, and a size more is compiled for seconds.
    """
    unit = 1 << max(0, (batch_size - 1).bit_length() - 2)
    return -(-batch_size // unit) * unit


def padded(steps: Steps, device: torch.device) -> tuple[Steps, Tensor]:
    """Steps whose sequences go on until few batch sizes are left, and where the old rows stand in them, int64 [R]."""
    sizes, new_sizes = torch.tensor(steps.sizes), list(map(round_up, steps.sizes))
    added = torch.tensor(new_sizes) - sizes
    rows = torch.arange(int(sizes.sum())) + torch.repeat_interleave(torch.cumsum(added, 0) - added, sizes)
    return Steps(new_sizes, steps.has_state), rows.to(device, non_blocking=True)


def pad(values: Tensor, steps: Steps, rows: Tensor) -> Tensor:
    """Rows [R, size] where `padded` has them, and zeros between."""
    return values.new_zeros(sum(steps.sizes), values.shape[1]).index_copy(0, rows, values)


class CompiledSteps:
    """What torch.compile makes of the steps of a model's cells. Cells of the same sizes share it.

    Args:
        backend: of torch.compile.
    """

    def __init__(self, backend: str | Callable[..., object]) -> None:
        # The compiler recommends TF32, which is the user's choice (train.tf32).
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        self.forward = compile_whole(_step, backend, _MOST_GRAPHS)
        self.back = compile_whole(_step_back, backend, _MOST_GRAPHS)


class CompiledRecurrence(Recurrence):
    """A recurrence by compiled steps. Its steps are those of `padded`, and it always needs masks.

    Args:
        compiled: the steps.
        make: makes the plain recurrence of the weights; always the same object, for it is part of what is compiled.
        weights: for `make`.
    """

    def __init__(self, compiled: CompiledSteps, make: Make, weights: Tensors) -> None:
        self.compiled, self.make = compiled, make
        # In training and evaluation alike: what would need a gradient is compiled apart from what does not.
        self.weights = tuple(weight.detach() for weight in weights)

    def run(self, projected: Tensor, masks: Tensor | None, state: Tensors, steps: Steps) -> Tensors:
        """See `Recurrence.run`."""
        # The compiler looks at what a tensor is a part of, and complains of what it finds.
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
            # What a sequence leaves on the tape is of the same size at every step.
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
    """What the steps gave, step after step, part by part."""
    return tuple(torch.cat(parts) for parts in zip(*steps, strict=True))


# Of these two a graph is made for each batch size.


def _step(make: Make, weights: Tensors, inputs: Tensor, mask: Tensor | None, old: Tensors) -> tuple[Tensors, Tensors]:
    """See `Recurrence.step`."""
    return make(weights).step(inputs, mask, old)


def _step_back(
    make: Make, weights: Tensors, grad: Tensor, grad_last: Tensors, mask: Tensor | None, saved: Saved
) -> tuple[Tensors, Tensors]:
    """See `Recurrence.back`."""
    return make(weights).back(grad, grad_last, mask, saved, Steps([len(grad)], True))
