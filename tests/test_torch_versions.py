"""Wrappers around APIs that differ between torch releases behave the same on each."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from sgloc.dist import Placement, process_group
from sgloc.torch_versions import compile_whole, replicate, set_timeout

NUM_SHAPES = 10


def _double(rows: Tensor) -> Tensor:
    return rows * 2


def test_shapes_are_counted_for_each_compiled_function() -> None:
    counters = [CompileCounter(), CompileCounter()]
    # As with torch's default, the limit is below the shapes of one function; both together exceed what either may have.
    with torch._dynamo.config.patch(recompile_limit=NUM_SHAPES - 2):
        for counter in counters:
            double = compile_whole(_double, counter, NUM_SHAPES)
            for _ in range(2):
                for number in range(1, NUM_SHAPES + 1):
                    assert double(torch.ones(number)).tolist() == [2.0] * number
    assert [counter.frame_count for counter in counters] == [NUM_SHAPES, NUM_SHAPES]


@pytest.fixture
def _one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_one_rank")
def test_a_replica_keeps_its_own_buffers() -> None:
    model = nn.BatchNorm1d(2)
    assert nn.parallel.DistributedDataParallel(model).will_sync_module_buffers()
    assert not replicate(model).will_sync_module_buffers()


@pytest.mark.usefixtures("_one_rank")
def test_a_group_waits_as_long_as_it_is_told() -> None:
    group = dist.new_group()
    set_timeout(group, 7)
    assert group._get_backend(torch.device("cpu")).options._timeout.total_seconds() == 7


def test_process_groups_write_nothing_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with process_group(Placement("plain", 0, 0, 1, "", 0), torch.device("cpu")) as group:
        group.separate()
        print("a result", flush=True)
    assert capfd.readouterr().out == "a result\n"
