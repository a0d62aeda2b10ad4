"""Recurrences whose steps torch.compile has made into a few kernels each: for CUDA, where a step is dozens of small
kernels that take longer to launch than to run.

A compiled step is made for one batch size. So that few sizes occur, sequences that have ended go on for a while, over
zeros: nobody reads what they give, so no gradient comes back from there.

Shapes as in `sgloc.nn.recurrent.recurrence`.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgloc.nn.recurrent.recurrence import StepwiseRecurrence, Tensors
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


@dataclass(frozen=True)
class Padding:
    """Sequences that go on until few batch sizes are left.

    Attributes:
        batch_sizes: how many sequences have a step t now.
        rows: int64 [R], where each row stands now.
    """

    batch_sizes: list[int]
    rows: Tensor

    @classmethod
    def of(cls, batch_sizes: list[int], device: torch.device) -> "Padding":
        """For sequences of which so many have a step t."""
        padded = list(map(round_up, batch_sizes))
        sizes = torch.tensor(batch_sizes)
        added = torch.tensor(padded) - sizes
        rows = torch.arange(int(sizes.sum())) + torch.repeat_interleave(torch.cumsum(added, 0) - added, sizes)
        return cls(padded, rows.to(device, non_blocking=True))

    def pad(self, values: Tensor) -> Tensor:
        """Rows [R, size] with zeros between."""
        return values.new_zeros(sum(self.batch_sizes), values.shape[1]).index_copy(0, self.rows, values)

    def pad_state(self, part: Tensor) -> Tensor:
        """A part of the first state [n, size] with zeros below."""
        return _with_zeros(part, self.batch_sizes[0])


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


class CompiledRecurrence:
    """A recurrence by compiled steps. Its batch sizes are those of a `Padding`, and it always needs masks.

    Args:
        steps: the compiled steps.
        make: makes the plain recurrence of the weights; always the same object, for it is part of what is compiled.
        weights: for `make`.
    """

    def __init__(self, steps: CompiledSteps, make: Callable[[Tensors], StepwiseRecurrence], weights: Tensors) -> None:
        self.steps, self.make = steps, make
        # In training and evaluation alike: what would need a gradient is compiled apart from what does not.
        self.weights = tuple(weight.detach() for weight in weights)

    def run(
        self, projected: Tensor, masks: Tensor | None, state: Tensors, batch_sizes: list[int], has_state: bool
    ) -> Tensors:
        """See `Recurrence.run`."""
        assert masks is not None
        # The compiler looks at what a tensor is a part of, and complains of what it finds.
        states, tapes = [tuple(part.detach() for part in state)], []
        for inputs, mask in zip(projected.detach().split(batch_sizes), masks.split(batch_sizes), strict=True):
            old = tuple(part[: len(inputs)] for part in states[-1])
            new, tape = self.steps.forward(self.make, self.weights, inputs, mask, old)
            states.append(new)
            tapes.append(tape)
        return *_join(states), *_join(tapes)

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
        assert masks is not None
        num_parts = len(grad_last)
        states = [part.split([batch_sizes[0], *batch_sizes]) for part in saved[:num_parts]]
        # What a sequence leaves on the tape is of the same size at every step.
        tape = [part.split([len(part) // len(grad) * size for size in batch_sizes]) for part in saved[num_parts:]]
        grads, step_masks = grad.split(batch_sizes), masks.split(batch_sizes)
        grad_state, of_steps = grad_last, []
        for number, size in reversed(list(enumerate(batch_sizes))):
            grad_state, of_step = self.steps.back(
                self.make,
                self.weights,
                grads[number],
                tuple(_with_zeros(part, size) for part in grad_state),
                step_masks[number],
                tuple(part[number][:size] for part in states),
                tuple(part[number + 1] for part in states),
                tuple(part[number] for part in tape),
            )
            of_steps.append(of_step)
        return grad_state, _join(of_steps[::-1])

    def gradients(
        self, saved: Tensors, of_steps: Tensors, batch_sizes: list[int], has_state: bool
    ) -> tuple[Tensor, Tensors]:
        """See `Recurrence.gradients`."""
        return self.make(self.weights).gradients(saved, of_steps, batch_sizes, has_state)


def _with_zeros(part: Tensor, num_rows: int) -> Tensor:
    """Rows [n, size], and zeros below them: [num_rows, size]; always anew, for a graph is made of a tensor's strides
    too."""
    return torch.cat([part, part.new_zeros(num_rows - len(part), part.shape[1])])


def _join(steps: list[Tensors]) -> Tensors:
    """What the steps gave, step after step, part by part."""
    return tuple(torch.cat(parts) for parts in zip(*steps, strict=True))


# Of these two a graph is made for each batch size.


def _step(
    make: Callable[[Tensors], StepwiseRecurrence], weights: Tensors, inputs: Tensor, mask: Tensor, old: Tensors
) -> tuple[Tensors, Tensors]:
    """See `StepwiseRecurrence.step`."""
    return make(weights).step(inputs, mask, old)


def _step_back(
    make: Callable[[Tensors], StepwiseRecurrence],
    weights: Tensors,
    grad: Tensor,
    grad_last: Tensors,
    mask: Tensor,
    old: Tensors,
    new: Tensors,
    tape: Tensors,
) -> tuple[Tensors, Tensors]:
    """See `StepwiseRecurrence.step_back`."""
    return make(weights).step_back(grad, grad_last, mask, old, new, tape)
