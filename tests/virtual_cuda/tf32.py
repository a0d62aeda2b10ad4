"""TF32 as computed by GPUs since Ampere: the factors of float32 products lose 13 of their 23 mantissa bits."""

import os
from typing import Any

import torch
from torch import Tensor

_LOST_BITS = 13
# The operands that each operation multiplies: one table for the switch "matmul", one for "conv".
_MATRIX_PRODUCTS = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), slice(0, 2)),
    **dict.fromkeys(("addmm", "addmm_", "baddbmm", "baddbmm_", "addbmm", "addmv", "addmv_"), slice(1, 3)),
}
_CONVOLUTIONS = {"convolution": slice(0, 2), "convolution_backward": slice(0, 3)}


def is_on(operation: str) -> bool:
    """Return whether "matmul", "conv" or "rnn" uses TF32: NVIDIA's variable if it is set, else PyTorch's switches."""
    override = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if override is not None:
        return override != "0"
    return bool(torch._C._get_fp32_precision_getter("cuda", operation) == "tf32")


def rounded(value: Tensor) -> Tensor:
    """Round a float32 tensor to TF32; return tensors of other dtypes unchanged."""
    if value.dtype != torch.float32:
        return value
    bits = value.contiguous().view(torch.int32)
    return ((bits + (1 << (_LOST_BITS - 1))) & -(1 << _LOST_BITS)).view(torch.float32)


def rounded_operands(name: str, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return an operation's operands, rounded to TF32 where its kernel would round them."""
    for operation, known in (("matmul", _MATRIX_PRODUCTS), ("conv", _CONVOLUTIONS)):
        if name in known and is_on(operation):
            factors = [rounded(value) for value in operands[known[name]]]
            return (*operands[: known[name].start], *factors, *operands[known[name].stop :])
    return operands
