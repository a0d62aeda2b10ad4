"""Start, observe and kill real training processes."""

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
    """Return the `sgloc train` options of a tiny training."""
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
        # One epoch is eight steps.
        "train.validate_every": "1 epoch",
        "train.checkpoint_every": 4,
        "train.device": "cpu",
    }
    return [word for name, value in tiny.items() for word in (f"--{name}", str(value))]


def start(
    run_dir: Path, shards: str, num_processes: int, *options: str, log: Path | None = None, max_restarts: int = 0
) -> "subprocess.Popen[bytes]":
    """Start a tiny training in its own process group (of the operating system); under torchrun if several ranks."""
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
    """Train to the end and return the training records; on failure, show the log."""
    run_ranks(["train", *tiny_options(run_dir, shards), *options], num_processes, run_dir.with_suffix(".log"), PATIENCE)
    return records(run_dir)


def records(run_dir: Path, event: str = "train") -> list[dict[str, Any]]:
    """Return the records of one event that a run has logged so far, ignoring a partly written last line."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [record for line in lines if (record := json.loads(line))["event"] == event]


def losses(lines: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    """Return, for each record, the values that must be bit-identical between runs."""
    names = ("step", "loss", "mixture", "pen", "divergence", "gradient_norm", "learning_rate")
    return [tuple(line[name] for name in names) for line in lines]


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> bool:
    """Poll until a condition holds; return False if the process exits first."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "timed out waiting for the process"
        time.sleep(0.005)
    return True


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGKILL to a process and all its descendants; return when they are gone and their locks released."""
    # torchrun starts each rank in a new session, so killing the process group does not reach the ranks.
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
    """Yield the process ids of the ranks started by a torchrun."""
    yield from children(process.pid)


def children(pid: int) -> Iterator[int]:
    """Yield the process ids of a process's children."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        # The thread may have ended since it was listed.
        with contextlib.suppress(OSError):
            yield from [int(child) for child in (task / "children").read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    return state_of(pid) not in ("", "Z")


def state_of(pid: int) -> str:
    """Return the state letter of a process from /proc: "T" if SGLOC_FAILPOINT has stopped it; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_for_ranks_to_stop(process: "subprocess.Popen[bytes]", number: int) -> list[int]:
    """Wait until SGLOC_FAILPOINT has stopped `number` ranks of a torchrun; return their process ids."""
    stopped: list[int] = []

    def all_have() -> bool:
        stopped[:] = [rank for rank in workers(process) if state_of(rank) == "T"]
        return len(stopped) == number

    assert wait_until(all_have, process), "torchrun exited before the ranks stopped"
    return stopped


def has_pending(pid: int, number: int) -> bool:
    """Return whether a signal is pending for a process, for example because the process is stopped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in lines if line.startswith("ShdPnd:"))
    return bool(int(mask, 16) >> (number - 1) & 1)
