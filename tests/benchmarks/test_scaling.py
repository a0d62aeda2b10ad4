"""`python -m benchmarks scaling`: its model against a real step's collectives and the real order's shares."""

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.scaling import (
    Collectives,
    Costs,
    Lengths,
    ScalingOptions,
    bytes_sent,
    shares,
    step,
    study_scaling,
)
from sgloc import dist
from sgloc.bench.drawn import draw_batch
from sgloc.data.batch import Preparation
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import Config, DecoderConfig, EncoderConfig, ModelConfig, TrainConfig
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.train.engine import open_engine
from tests.patience import PATIENCE
from tests.ports import free_port

CPU = torch.device("cpu")
TINY = Config(
    model=ModelConfig(EncoderConfig(hidden_size=4), DecoderConfig("lstm", 6, num_mixtures=2), latent_size=5),
    train=TrainConfig(global_batch=8, device="cpu"),
)


class Recorded(TorchDispatchMode):
    """A dispatch mode that records collectives: name, number of elements, bytes per element."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[str, int, int]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            (tensor,) = args[0]
            self.calls.append((function.__name__.partition("_.")[0], tensor.numel(), tensor.element_size()))
        return function(*args, **(kwargs or {}))


def _rank(rank: int, port: int) -> None:
    placement = dist.Placement("srun", rank, rank, 2, "127.0.0.1", port)
    with dist.process_group(placement, CPU, 60.0) as group:
        packed = draw_batch(TINY.train.global_batch, 0)
        batch = Preparation(scale=30.0, seed=0)(packed.part(4 * rank, 4 * rank + 4), CPU)
        torch.manual_seed(0)
        engine = open_engine(SketchGloc(TINY.model, TINY.loss, 9), TINY, group)
        for _ in range(2):
            # Only the second step's calls are reported: in the first, the ranks agree on DDP's buckets.
            with Recorded() as recorded:
                engine.backward(batch)
                # Like the training loop, which sums the losses and the stop request.
                group.sum([0.0] * 5)
                engine.update(1e-3)
        engine.close()
    if rank == 0:
        print(json.dumps(recorded.calls), flush=True)
    os._exit(0)


def main() -> None:
    """Print the collectives of the second step of two ranks."""
    port = free_port()
    children = []
    for rank in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            _rank(rank, port)
    for child in children:
        os.waitpid(child, 0)


@pytest.mark.slow
def test_the_collectives_are_those_of_a_step() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.test_scaling"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    calls = json.loads(done.stdout)
    assert {name for name, _, _ in calls} == {"allreduce"}
    expected = Collectives.of(TINY)
    sizes = sorted(elements * size for _, elements, size in calls)
    gradient = 4 * expected.gradient
    assert sorted([gradient, *expected.small]) == sizes


def test_bytes_of_a_ring() -> None:
    assert bytes_sent(96e6, 2, 1) == 0
    assert bytes_sent(96e6, 2, 4) == pytest.approx(144e6)
    assert Collectives.of(Config()).gradient == 24_057_979


def test_a_step_waits_for_the_slowest() -> None:
    share = {"world_size": 8, "global_batch": 800, "sketches": 100.0, "most_points": 1.5}
    share |= {"longest": 200.0, "longest_of_rank": 100.0}
    costs, collectives = Costs(launch=1e-3, sketch=1e-3, latency=1e-4, bandwidth=1e9), Collectives(10**6, (4, 40))
    record = step(costs, collectives, share, 8_000_000)
    assert record["compute"] == pytest.approx(200 + 150)
    assert record["gradient"] == pytest.approx(7 + 0.3)
    assert record["small"] == pytest.approx(0.6)
    assert record["efficiency"] == pytest.approx(200 / 357.9)
    assert (record["steps"], record["epoch_hours"]) == (10_000, pytest.approx(0.3579 * 10_000 / 3600))


def test_shares_are_those_of_the_order() -> None:
    """Two categories of very different lengths, one category per block: with few streams per rank, the ranks differ."""
    lengths = Lengths.draw(2**16, [np.array([10]), np.array([30])], seed=0)
    one = shares(lengths.batches(1024), 1)
    assert (one["most_points"], one["longest"], one["longest_of_rank"]) == (1, 30, 30)
    many = shares(lengths.batches(8192), 512)
    # On some rank, both streams contain the longer drawings.
    assert many["most_points"] == pytest.approx(1.5, abs=0.1)
    assert many["most_points_at_random"] < 1.45
    assert many["longest_of_rank"] < 30
    alike = shares(Lengths.draw(2**16, [np.array([20])], seed=0).batches(8192), 64)
    assert (alike["most_points"], alike["most_points_at_random"]) == (1, 1)


@pytest.mark.parametrize("with_data", [False, True])
def test_the_report(tiny_shards: str, with_data: bool) -> None:
    data = tiny_shards if with_data else None
    options = ScalingOptions(data=data, sketches=40_000, world_sizes=(8, 512), costs="latency=1")
    records = [json.loads(line) for line in study_scaling(options, TINY).to_json().splitlines()]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_name.setdefault(record["name"], []).append(record)
    # A global batch of 100 drawings is too small for 512 ranks.
    assert len(by_name["a step, computed"]) == len(by_name["shares of a global batch, simulated"]) == 7
    assert by_name["settings"][0]["latency"] == 1
    assert [record["world_size"] for record in by_name["bytes of a rank, computed"]] == [8, 512]
    assert all(
        record["small"] == 6000 * (3 if record["world_size"] == 8 else 9) for record in by_name["a step, computed"]
    )


def test_costs() -> None:
    assert Costs.parse("") == Costs()
    assert Costs.parse("launch=1,bandwidth=2e9") == dataclasses.replace(Costs(), launch=1.0, bandwidth=2e9)
    for text, told in (
        ("launch", "costs: 'launch' is not a name and a number"),
        ("lunch=1", "costs: unknown name 'lunch'; the names are launch, sketch, latency, bandwidth"),
        ("launch=0", "costs: launch must be above 0, not 0.0"),
        ("launch=nan", "costs: launch must be above 0"),
    ):
        with pytest.raises(ConfigError, match=told):
            Costs.parse(text)


if __name__ == "__main__":
    main()
