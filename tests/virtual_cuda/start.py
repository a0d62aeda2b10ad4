"""Start processes that use the virtual device."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from tests.patience import PATIENCE
from tests.ports import free_port
from tests.virtual_cuda.build import library


def start(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """Start Python with these arguments and additional environment variables."""
    environment = {**os.environ, "VIRTUAL_CUDA": str(library()), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(*processes: "subprocess.Popen[str]") -> list[str]:
    """Wait for the processes, all of which must succeed, and return their outputs."""
    try:
        said = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n\n".join(said)
    return said


def run_commands(*commands: Sequence[str], num_ranks: int = 1, **variables: str) -> list[str]:
    """Run `sgloc` commands one after the other on the virtual device and return the output of each rank.

    Args:
        commands: Commands, each a list of words.
        num_ranks: Number of processes, each with its own device.
        variables: Additional environment variables.
    """
    words = json.dumps([list(map(str, command)) for command in commands])
    ranks: list[dict[str, str]] = [{}]
    if num_ranks > 1:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_ranks)]
        ranks = [{**meeting, **place, "WORLD_SIZE": str(num_ranks)} for place in places]
    return finish(*(start("-m", "tests.virtual_cuda.run", words, **rank, **variables) for rank in ranks))
