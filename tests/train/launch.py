"""Starting real training processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.forking import run_ranks
from tests.patience import PATIENCE


def tiny_options(run_dir: Path, shards: str) -> list[str]:
    """Options of `sgloc train` for a tiny training."""
    tiny = {
        "model.encoder.hidden_size": 8,
        "model.decoder.hidden_size": 12,
        "model.latent_size": 6,
        "model.hyper_size": 8,
        "model.hyper_embedding_size": 4,
        "data.path": shards,
        "data.disturb": 0.1,
        "data.validation_disturb": 0.2,
        "loss.density_floor": 1e-6,
        "optimizer.clip_by": "variable",
        "train.run": run_dir,
        "train.global_batch": 32,
        "train.log_every": 1,
        # Eight steps.
        "train.validate_every": "1 epoch",
        "train.checkpoint_every": 4,
        "train.device": "cpu",
    }
    return [word for name, value in tiny.items() for word in (f"--{name}", str(value))]


def start(
    run_dir: Path, shards: str, num_processes: int, *options: str, log: Path | None = None, max_restarts: int = 0
) -> "subprocess.Popen[bytes]":
    """Start a tiny training under torchrun, in a process group of its own."""
    command = [sys.executable, "-m"]
    if num_processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
        command += ["--max-restarts", str(max_restarts), "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = log.open("ab") if log else subprocess.DEVNULL
    try:
        return subprocess.Popen(
            [*command, "sgloc", "train", *tiny_options(run_dir, shards), *options],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        if log:
            output.close()  # type: ignore[union-attr]


def run(run_dir: Path, shards: str, num_processes: int, *options: str) -> list[dict[str, Any]]:
    """Train to the end and give the training records; the log is shown when it fails."""
    run_ranks(["train", *tiny_options(run_dir, shards), *options], num_processes, run_dir.with_suffix(".log"), PATIENCE)
    return records(run_dir)


def records(run_dir: Path, event: str = "train") -> list[dict[str, Any]]:
    """The records of an event that a run has logged so far; a line that is being written does not count."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [record for line in lines if (record := json.loads(line))["event"] == event]


def losses(lines: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    """What must be equal to the bit, line by line."""
    names = ("step", "loss", "mixture", "pen", "divergence", "gradient_norm", "learning_rate")
    return [tuple(line[name] for name in names) for line in lines]


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> bool:
    """Poll until a condition holds; False if the process ends before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "the process does not get there"
        time.sleep(0.005)
    return True


def kill(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL a process and all that it started, and wait until the locks of all are free."""
    # torchrun gives every rank a session of its own.
    started = list(_descendants(process.pid))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        while is_running(pid):
            time.sleep(0.005)


def _descendants(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from _descendants(child)


def workers(process: "subprocess.Popen[bytes]") -> Iterator[int]:
    """Process ids of the ranks that a torchrun started."""
    yield from children(process.pid)


def children(pid: int) -> Iterator[int]:
    """Process ids of what a process has started."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        # Threads and processes come and go.
        with contextlib.suppress(OSError):
            yield from [int(child) for child in (task / "children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    return state_of(pid) not in ("", "Z")


def state_of(pid: int) -> str:
    """The letter by which Linux tells what a process does: "T" where SGLOC_FAILPOINT stopped it; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_for_ranks_to_stop(process: "subprocess.Popen[bytes]", number: int) -> list[int]:
    """Wait until SGLOC_FAILPOINT has stopped so many ranks of a torchrun; gives their process ids."""
    stopped: list[int] = []

    def all_have() -> bool:
        stopped[:] = [rank for rank in workers(process) if state_of(rank) == "T"]
        return len(stopped) == number

    assert wait_until(all_have, process), "torchrun ended before"
    return stopped


def has_pending(pid: int, number: int) -> bool:
    """Whether a signal waits for a process that is stopped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in lines if line.startswith("ShdPnd:"))
    return bool(int(mask, 16) >> (number - 1) & 1)
