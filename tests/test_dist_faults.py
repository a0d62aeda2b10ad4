"""What a rank is told when another one dies or hangs, by real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
import torch.distributed

from sgloc import dist
from sgloc.dist import Placement

TIMEOUT = 1.0
# What becomes of the first rank, which serves the store; and what the second then calls.
CASES = {
    "killed": ("SIGKILL", "all_reduce"),
    "killed, and the store with it": ("SIGKILL", "new_group"),
    "stopped": ("SIGSTOP", "all_reduce"),
    "stopped, and asked again": ("SIGSTOP", "all_reduce twice"),
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
        # Until the system has told of it.
        time.sleep(0.3)
        try:
            _call(what)
        except RuntimeError as error:
            record = {"lost": dist.is_lost_peer(error), "timeout": dist.is_timeout(error), "said": str(error)}
            print(json.dumps(record), flush=True)
        os._exit(0)


def _fork(rank: int, port: int, fault: str, what: str) -> int:
    child = os.fork()
    if child == 0:
        _rank(rank, port, fault, what)
    return child


def main() -> None:
    """Print what the second rank is told in each case; one process, so that torch is imported once."""
    for fault, what in CASES.values():
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        first, second = (_fork(rank, port, fault, what) for rank in (0, 1))
        os.waitpid(second, 0)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    """What the second rank was told, by case."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_dist_faults"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_rank_that_died_and_one_that_hangs_are_told_apart(told: dict[str, dict[str, Any]], case: str) -> None:
    is_killed = case.startswith("killed")
    assert (told[case]["lost"], told[case]["timeout"]) == (is_killed, not is_killed), told[case]["said"]


# In the words of nccl and of torch, where there is a GPU or another kind of store.
@pytest.mark.parametrize(
    ("said", "lost", "timeout"),
    [
        ("NCCL error: remote process exited or there was a network error, NCCL version 2.27.3", True, False),
        ("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7) ran for 600000 ms", False, True),
        ("wait timeout after 600000ms, keys: /attempt-0/0//cpu//0/1", False, True),
        ("Connection was likely closed. Did the remote server shutdown or crash?", True, False),
        ("size of tensor a (3) must match the size of tensor b (4)", False, False),
    ],
)
def test_messages_of_nccl_and_the_store(said: str, lost: bool, timeout: bool) -> None:
    error = RuntimeError(said)
    assert (dist.is_lost_peer(error), dist.is_timeout(error)) == (lost, timeout)


if __name__ == "__main__":
    main()
