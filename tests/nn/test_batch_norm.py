"""Batch norm over the global batch: one process against PyTorch, and several real processes against one."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

from sgloc.nn.batch_norm import GlobalBatchNorm
from tests.forking import FORKING

ROWS, WIDTH = 7, 4


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Far from zero, where a naive variance computation loses digits to cancellation.
    return torch.randn(ROWS, WIDTH, generator=generator) + 30, torch.randn(ROWS, WIDTH, generator=generator)


def step(norm: torch.nn.Module, rows: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = rows.clone().requires_grad_()
    output = norm(rows)
    (torch.tanh(output) * weights).sum().backward()
    assert rows.grad is not None
    names = {"output": output.detach(), "rows": rows.grad}
    names |= {name: parameter.grad for name, parameter in norm.named_parameters() if parameter.grad is not None}
    return names | {name: value.clone() for name, value in norm.named_buffers() if value.is_floating_point()}


def test_equals_torch_in_one_process() -> None:
    rows, weights = problem()
    rows, weights = rows.double(), weights.double()
    mine, theirs = GlobalBatchNorm(WIDTH).double(), torch.nn.BatchNorm1d(WIDTH).double()
    for _ in range(3):
        torch.testing.assert_close(step(mine, rows, weights), step(theirs, rows, weights), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(mine.eval()(rows), theirs.eval()(rows), rtol=1e-9, atol=1e-9)


def worker(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    rows, weights = problem()
    # Unequal shares: 1, 2 and 4 of 7 rows.
    bounds = [0, 1, 3, 7]
    mine = slice(bounds[rank], bounds[rank + 1])
    torch.save(step(GlobalBatchNorm(WIDTH), rows[mine], weights[mine]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_three_processes_equal_one(tmp_path: Path) -> None:
    method = FORKING.get_start_method()
    torch.multiprocessing.start_processes(worker, (3, str(tmp_path)), nprocs=3, start_method=method)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    rows, weights = problem()
    whole = step(GlobalBatchNorm(WIDTH), rows, weights)
    for name in ("output", "rows"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias"):
        torch.testing.assert_close(sum(part[name] for part in parts), whole[name], rtol=1e-4, atol=1e-4)
    for name in ("running_mean", "running_var"):
        assert all(torch.equal(part[name], parts[0][name]) for part in parts)
        torch.testing.assert_close(parts[0][name], whole[name], rtol=1e-6, atol=1e-6)
