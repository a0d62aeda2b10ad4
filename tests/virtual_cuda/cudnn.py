"""A replacement for torch.lstm that follows cuDNN: one call, with cuDNN's restrictions."""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.virtual_cuda import tf32
from tests.virtual_cuda.tensors import VirtualTensor

_NOT_ONE_CHUNK = (
    "RNN module weights are not part of single contiguous chunk of memory. This means they need to be compacted at "
    "every call, possibly greatly increasing memory usage. To compact weights again call flatten_parameters()."
)

_real_lstm = torch.lstm


def in_one_chunk(weights: Sequence[Tensor]) -> bool:
    """Return whether weights have cuDNN's memory layout: contiguous from the start of their storage, first the matrices
    of all directions, then all biases.

    Args:
        weights: For each direction, the input weights, the recurrent weights and the two biases.
    """
    ordered = [weight for weight in weights if weight.dim() > 1] + [weight for weight in weights if weight.dim() == 1]
    if not all(weight.is_contiguous() and weight.dtype == ordered[0].dtype for weight in ordered):
        return False
    places = [ordered[0].untyped_storage().data_ptr(), *(weight.data_ptr() for weight in ordered)]
    sizes = [0, *(weight.numel() * weight.element_size() for weight in ordered)]
    return all(
        place + size == following for (place, following), size in zip(itertools.pairwise(places), sizes, strict=False)
    )


class _CudnnLSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: tuple[Any, ...], sizes: Tensor, *tensors: Tensor) -> Any:
        data, h, c, *weights = (tensor.host for tensor in tensors)  # type: ignore[attr-defined]
        ctx.is_training, ctx.device = options[3], tensors[0].device
        if not in_one_chunk(weights):
            warnings.warn(_NOT_ONE_CHUNK, UserWarning, stacklevel=2)
        if tf32.is_on("rnn"):
            data, weights = tf32.rounded(data), [tf32.rounded(weight) for weight in weights]
        with torch.enable_grad():
            ctx.leaves = [tensor.detach().requires_grad_() for tensor in (data, h, c, *weights)]
            ctx.results = _real_lstm(ctx.leaves[0], sizes, tuple(ctx.leaves[1:3]), ctx.leaves[3:], *options)
        return tuple(VirtualTensor(result.detach().clone(), ctx.device) for result in ctx.results)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if not ctx.is_training:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        found = torch.autograd.grad(ctx.results, ctx.leaves, [gradient.host for gradient in gradients])
        return None, None, *(VirtualTensor(gradient, ctx.device) for gradient in found)


def lstm(data: Tensor, sizes: Tensor, state: Any, weights: Any, *options: Any) -> Any:
    """Replace `torch.lstm` for packed sequences; options: has_biases, num_layers, dropout, train, bidirectional."""
    if not isinstance(data, VirtualTensor):
        return _real_lstm(data, sizes, state, weights, *options)
    tensors = (data, *state, *weights)
    if not all(isinstance(tensor, VirtualTensor) for tensor in tensors):
        raise RuntimeError("Input and parameter tensors are not at the same device")
    if isinstance(sizes, VirtualTensor):
        raise RuntimeError("batch_sizes should always be on CPU")
    return _CudnnLSTM.apply(options, sizes, *tensors)  # type: ignore[no-untyped-call]
