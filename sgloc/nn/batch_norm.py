"""Batch norm with the statistics of the global batch (METHOD 5.4), on every backend."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


class _SumOverRanks(torch.autograd.Function):
    """All-reduce sum. Every rank's loss depends on the sum, so the backward pass all-reduces the gradients too."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        return _sum_over_ranks(*gradients)


def _sum_over_ranks(values: Tensor) -> Tensor:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    return _SumOverRanks.apply(values)  # type: ignore[no-any-return, no-untyped-call]


class GlobalBatchNorm(nn.Module):
    """Batch norm over the rows of all ranks. Replaces torch's SyncBatchNorm, which rejects CPU tensors.

    The running statistics are the same on all ranks: 0.9 of the old value plus 0.1 of the batch's, with the unbiased
        variance. Statistics are computed in at least float32.
    """

    def __init__(self, num_features: int, epsilon: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.epsilon, self.momentum = epsilon, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.running_mean = nn.Buffer(torch.zeros(num_features))
        self.running_var = nn.Buffer(torch.ones(num_features))

    def forward(self, rows: Tensor) -> Tensor:
        """Normalize rows [B, D]. In training, B may be 0 on a rank as long as some other rank has a row."""
        rows = rows.to(self.weight.dtype)
        if not self.training:
            return (rows - self.running_mean) * torch.rsqrt(self.running_var + self.epsilon) * self.weight + self.bias
        count = _sum_over_ranks(rows.new_tensor([float(len(rows))]))
        mean = _sum_over_ranks(rows.sum(0)) / count
        # Two passes: E[x^2] - E[x]^2 would lose digits, and different ones at every world size.
        variance = _sum_over_ranks((rows - mean).square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        return (rows - mean) * torch.rsqrt(variance + self.epsilon) * self.weight + self.bias
