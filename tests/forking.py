"""Processes that start at once: forked from one that has imported all that they need."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

from tests.ports import free_port

# The process that others are forked from starts when the first of them is wanted, and has no threads.
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["torch", "torch._dynamo", "torch.distributed", "sgloc.cli", "sgloc.train.trainer"])


def run_ranks(words: Sequence[str], number: int, log: Path, timeout: float) -> None:
    """Run a command of `sgloc` in so many ranks, to its end. What torchrun does is tested where it is started.

    Args:
        words: the command and its options.
        number: of ranks; one knows nothing of ranks.
        log: the file to which all append what they say; it is shown when one fails.
        timeout: seconds after which what still runs is killed.
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
            # One that has not been started cannot be killed.
            with contextlib.suppress(AttributeError):
                process.kill()


def _be_a_rank(words: list[str], environment: dict[str, str], folder: str, log: str) -> None:
    import torch

    from sgloc.cli import main

    # The process that this one is forked from began in another environment.
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    torch.set_num_threads(1)
    main(words)
