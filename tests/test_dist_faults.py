"""Errors that a rank raises when another rank dies, hangs or fails; with real processes."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed

from sgloc import dist
from sgloc.data.reader import BadShardError
from sgloc.dist import Group, Placement
from sgloc.errors import DataError
from tests.patience import PATIENCE
from tests.ports import free_port

TIMEOUT = 1.0
# What happens to the first rank, which serves the store, and what the second rank calls next.
CASES = {
    "killed": ("SIGKILL", "all_reduce"),
    "killed, and the store with it": ("SIGKILL", "new_group"),
    "stopped": ("SIGSTOP", "all_reduce"),
    "stopped, and asked again": ("SIGSTOP", "all_reduce twice"),
}
# Errors that one rank raises while the others wait for its result.
RAISED: dict[str, Exception] = {
    "a mistake": DataError("no such shard"),
    "a fault": KeyError("gone"),
    "an error that cannot be pickled": BadShardError("shard 3 is damaged", 3),
    "a timeout that is no rank's": RuntimeError("CUDA error: the launch timed out and was terminated"),
}
# Calls that all ranks make together; `fail` is the function that fails on rank 0.
TOGETHER: dict[str, Callable[[Group, Callable[[], object]], object]] = {
    "on rank 0": lambda group, fail: group.on_rank_0(fail),
    "on each rank": lambda group, fail: group.on_each_rank(fail if group.rank == 0 else lambda: None),
    "on rank 0, which asks a store": lambda group, fail: group.separate().asking("the store").on_rank_0(fail),
    "a result that cannot be pickled": lambda group, _: group.on_rank_0(lambda: lambda: None),
}


def _call(what: str) -> None:
    values = torch.ones(4)
    if what == "new_group":
        torch.distributed.new_group()
    if what == "all_reduce twice":
        with pytest.raises(RuntimeError):
            torch.distributed.all_reduce(values)
    torch.distributed.all_reduce(values)


def _rank(rank: int, port: int, fault: str, what: str) -> None:
    with dist.process_group(Placement("srun", rank, rank, 2, "127.0.0.1", port), torch.device("cpu"), TIMEOUT):
        torch.distributed.all_reduce(torch.ones(1))
        if rank == 0:
            os.kill(os.getpid(), signal.Signals[fault])
        # Give the system time to report it to the other rank.
        time.sleep(0.3)
        try:
            _call(what)
        except RuntimeError as error:
            record = {"lost": dist.lost_rank(error), "said": str(error)}
            print(json.dumps(record), flush=True)
        os._exit(0)


def _together(rank: int, port: int) -> None:
    """Print what a rank raises for each collective call and each error."""
    with dist.process_group(Placement("srun", rank, rank, 2, "127.0.0.1", port), torch.device("cpu"), 60.0) as group:
        for way, together in TOGETHER.items():
            for raised, error in RAISED.items():
                told = _outcome(functools.partial(together, group), error)
                line = json.dumps({"way": way, "raised": raised, "rank": rank, **told}) + "\n"
                # A single write, because both ranks write to the same pipe.
                os.write(1, line.encode())
    os._exit(0)


def _outcome(together: Callable[[Callable[[], object]], object], error: Exception) -> dict[str, Any]:
    def fail() -> None:
        raise error

    try:
        together(fail)
    except Exception as outcome:
        return {"kind": type(outcome).__name__, "said": str(outcome), "told": getattr(outcome, "told", None)}
    return {"kind": "none"}


def _fork(call: Callable[..., None], *arguments: object) -> int:
    child = os.fork()
    if child == 0:
        call(*arguments)
    return child


def main() -> None:
    """Print the errors that ranks raise in each case; forks from one process, so that torch is imported once."""
    port = free_port()
    for child in [_fork(_together, rank, port) for rank in (0, 1)]:
        os.waitpid(child, 0)
    for fault, what in CASES.values():
        port = free_port()
        first, second = (_fork(_rank, rank, port, fault, what) for rank in (0, 1))
        os.waitpid(second, 0)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """What the ranks raised, one record per line of output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_dist_faults"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_rank_that_died_and_one_that_hangs_are_told_apart(lines: list[dict[str, Any]], case: str) -> None:
    told = dict(zip(CASES, [line for line in lines if "way" not in line], strict=True))
    assert told[case]["lost"] == ("gone" if case.startswith("killed") else "silent"), told[case]["said"]


@pytest.mark.slow
@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("way", TOGETHER)
def test_whatever_one_rank_raises_ends_all(lines: list[dict[str, Any]], way: str, raised: str) -> None:
    found = [line for line in lines if (line.get("way"), line.get("raised")) == (way, raised)]
    first, second = sorted(found, key=lambda line: int(line["rank"]))
    if way == "a result that cannot be pickled":
        assert first["kind"] in ("PicklingError", "AttributeError")
        assert second["kind"] == "OtherRankError"
        return
    # The failing rank raises its own error.
    assert (first["kind"], first["said"]) == (type(RAISED[raised]).__name__, str(RAISED[raised]))
    if isinstance(RAISED[raised], DataError):
        assert second["told"] is True or second["kind"] == "OtherRankError"
    else:
        assert (second["kind"], second["told"]) == ("OtherRankError", False)
        assert second["said"].startswith(f"rank 0 failed ({first['kind']}: ")
    assert str(RAISED[raised]) in second["said"]


# Messages of NCCL and torch that occur with a GPU or another kind of store.
@pytest.mark.parametrize(
    ("error", "lost"),
    [
        pytest.param(
            torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"),
            "gone",
            id="nccl lost a rank",
        ),
        pytest.param(
            torch.distributed.DistBackendError("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL"),
            "silent",
            id="nccl waited",
        ),
        pytest.param(
            torch.distributed.DistStoreError("wait timeout after 600000ms, keys: /attempt-0/0//cpu//0/1"),
            "silent",
            id="the store waited",
        ),
        pytest.param(
            torch.distributed.DistNetworkError("Connection was likely closed. Did the remote server shutdown?"),
            "gone",
            id="the store is gone",
        ),
        pytest.param(
            torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), "gone", id="the network failed"
        ),
        pytest.param(
            torch.distributed.DistNetworkError("The client socket has timed out after 60000ms"),
            "silent",
            id="the network waited",
        ),
        pytest.param(
            RuntimeError(
                "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:1"
            ),
            "gone",
            id="gloo of torch 2.9",
        ),
        pytest.param(RuntimeError("CUDA error: the launch timed out and was terminated"), "", id="a kernel"),
        pytest.param(RuntimeError("Triton compile worker timed out"), "", id="a compiler"),
        pytest.param(RuntimeError("broken pipe"), "", id="a pipe of something else"),
        pytest.param(RuntimeError("size of tensor a (3) must match that of b (4)"), "", id="a fault"),
        pytest.param(
            torch.distributed.DistBackendError("NCCL error: Cuda failure 'the launch timed out'"),
            "",
            id="a kernel under nccl",
        ),
    ],
)
def test_only_collectives_lose_ranks(error: RuntimeError, lost: str) -> None:
    assert dist.lost_rank(error) == lost


if __name__ == "__main__":
    main()
