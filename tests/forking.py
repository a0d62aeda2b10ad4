"""Fast-starting processes, forked from a server that has already imported everything they need."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

from tests.ports import free_port

# The fork server starts with the first process and has no threads.
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["torch", "torch._dynamo", "torch.distributed", "sgloc.cli", "sgloc.train.trainer"])


def run_ranks(words: Sequence[str], number: int, log: Path, timeout: float) -> None:
    """Run a `sgloc` command to its end in `number` ranks, without torchrun, which has its own tests.

    Args:
        words: the command and its options.
        number: number of ranks; a single rank gets no rank variables.
        log: file that collects the output of all ranks; shown when a rank fails.
        timeout: seconds after which ranks still running are killed.
    """
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(number)}
    log.touch()
    ranks = []
    for rank in range(number):
        place = {**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)} if number > 1 else {}
        arguments = (list(words), {**os.environ, **place}, str(Path.cwd()), str(log))
        ranks.append(FORKING.Process(target=_be_a_rank, args=arguments))
    end = time.monotonic() + timeout
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(max(0, end - time.monotonic()))
        assert [process.exitcode for process in ranks] == [0] * number, log.read_text()
    finally:
        for process in ranks:
            # A process that was never started raises AttributeError.
            with contextlib.suppress(AttributeError):
                process.kill()


def _be_a_rank(words: list[str], environment: dict[str, str], folder: str, log: str) -> None:
    import torch

    from sgloc.cli import main

    # The fork server was started with another environment.
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    torch.set_num_threads(1)
    main(words)
