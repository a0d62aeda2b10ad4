"""Matrix products through the faster of the libraries bundled with torch.

On a CPU, torch multiplies float32 matrices with MKL, which uses only half the vector width on AMD processors and, for
a handful of rows, reads the weight again for each row. oneDNN, also bundled, has neither problem (docs/PERFORMANCE.md).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def at_least_float32(values: Tensor) -> Tensor:
    """Convert to float32, unless the dtype is wider already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _by_onednn(rows: Tensor, weight: Tensor) -> bool:
    return (
        # For a single row MKL is as fast, with less overhead.
        rows.shape[0] > 1
        and rows.dtype == torch.float32
        and rows.is_cpu
        # torch.compile picks its own kernels.
        and not torch.compiler.is_compiling()
        and _HAS_ONEDNN
        and rows.numel() > 0
        and weight.numel() > 0
    )


def _dense(matrix: Tensor) -> Tensor:
    # For any other layout oneDNN falls back to its reference kernel, a thousand times slower.
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Compute rows @ weight + bias, for tensors of one dtype and any strides; not differentiable.

    Args:
        rows: [n, A].
        weight: [A, B].
        bias: [B] or None.
        out: [n, B], receives the result; None allocates a new tensor.

    Returns:
        [n, B].
    """
    if _by_onednn(rows, weight):
        result: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(rows), _dense(weight.t()), bias, "none", [], "")
        return result if out is None else out.copy_(result)
    return torch.mm(rows, weight, out=out) if bias is None else torch.addmm(bias, rows, weight, out=out)


def accumulate(total: Tensor, rows: Tensor, weight: Tensor) -> None:
    """Add rows [n, A] @ weight [A, B] to total [n, B] in place; the dtype of `total` may be wider than the weight's."""
    if weight.dtype == total.dtype and not _by_onednn(rows, weight):
        total.addmm_(rows, weight)
    else:
        total += product(rows.to(weight.dtype), weight)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(grad, weight.t()) if of_rows else None,
            product(rows.t(), grad) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute rows [n, A] @ weight [A, B] + bias [B], in autocast's dtype if it is enabled; differentiable once."""
    device = rows.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        rows, weight, bias = rows.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    result: Tensor = _Product.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    return result


class Linear(nn.Linear):
    """A fully connected layer using `multiply`; initial weight variance 2 / inputs, zero bias (METHOD 5.2)."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        nn.init.normal_(self.weight, std=math.sqrt(2 / num_inputs))
        nn.init.zeros_(self.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows [n, inputs] to [n, outputs]."""
        return multiply(rows, self.weight.t(), self.bias)
