"""Soak test: a training run that is killed a hundred times must end with the weights of an undisturbed run.

    python benchmarks/soak.py --folder /tmp/soak --kills 100

The setup is a user's: `torchrun --max-restarts`, real processes, SIGKILL. There are four kinds of victims, killed at
random moments: one rank; torchrun alone; everything; and one rank while a checkpoint is being written. After each kill
every existing checkpoint must verify. The test takes about half an hour on two cores, too long for the test suite.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sgloc.errors import CheckpointError
from sgloc.program import run_program
from sgloc.train.checkpoint.format import step_folder
from sgloc.train.checkpoint.load import checkpoint_steps, read_checkpoint

VICTIMS = ("rank", "torchrun", "everything", "rank while saving")
# Longest wait for a save to kill in, in seconds.
PATIENCE = 120.0


class Run:
    """A training run under torchrun that can be started, killed and restarted.

    Args:
        run_dir: run folder.
        options: command-line options of the soak test.
    """

    def __init__(self, run_dir: Path, options: argparse.Namespace) -> None:
        self.run_dir = run_dir
        launcher = ("--standalone", f"--nproc-per-node={options.processes}", "--max-restarts=1000")
        words = {
            "config": options.config,
            "data.path": options.data,
            "train.run": run_dir,
            "train.num_steps": options.steps,
            "train.checkpoint_every": 5,
            "train.validate_every": options.steps,
            "train.log_every": 1,
            "train.device": "cpu",
        }
        training = [f"--{name}={value}" for name, value in words.items()]
        self.command = [sys.executable, "-m", "torch.distributed.run", *launcher, "-m", "sgloc", "train", *training]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the run unless it is running, and return the torchrun process."""
        if self.process is None or self.process.poll() is not None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with self.run_dir.with_suffix(".log").open("ab") as log:
                self.process = subprocess.Popen(
                    self.command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
        return self.process

    def ranks(self) -> list[int]:
        """Return the process ids of the running ranks."""
        assert self.process is not None
        found: list[int] = []
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{self.process.pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found

    def kill(self, victim: str, chance: random.Random) -> bool:
        """Send SIGKILL to a victim; return False if there was nothing to kill."""
        assert self.process is not None
        try:
            if victim == "everything":
                os.killpg(self.process.pid, signal.SIGKILL)
                for rank in self.ranks():
                    os.kill(rank, signal.SIGKILL)
            elif victim == "torchrun":
                self.process.send_signal(signal.SIGKILL)
            else:
                os.kill(chance.choice(self.ranks()), signal.SIGKILL)
        except (IndexError, ProcessLookupError):
            return False
        if victim in ("everything", "torchrun"):
            self.process.wait()
        return True

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(self.run_dir.glob("checkpoints/step-*.tmp"))

    def step(self) -> int:
        """Return the last logged step; 0 before the first."""
        try:
            lines = (self.run_dir / "metrics.jsonl").read_text().split("\n")[:-1]
        except OSError:
            return 0
        return int(json.loads(lines[-1])["step"]) if lines else 0


def wait_for_moment(run: Run, victim: str, chance: random.Random) -> None:
    """Wait for the moment to kill: inside a save, or any moment after the start, including while loading."""
    if victim == "rank while saving":
        end, step = time.monotonic() + PATIENCE, run.step() + chance.randrange(25)
        while not (run.step() >= step and run.is_saving()) and time.monotonic() < end and run.start().poll() is None:
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.02))
    else:
        time.sleep(chance.uniform(0, 16))


def verify_all(run_dir: Path) -> int:
    """Verify every committed checkpoint of the run, and return their number.

    Raises:
        SystemExit: if one is damaged.
    """
    number = 0
    for step in checkpoint_steps(str(run_dir)):
        try:
            read_checkpoint(step_folder(str(run_dir), step))
            number += 1
        except CheckpointError as error:
            # Training may have removed it meanwhile as too old.
            if step in checkpoint_steps(str(run_dir)):
                sys.exit(f"unreadable: {error}")
    return number


def soak(run: Run, num_kills: int, chance: random.Random) -> Counter[str]:
    """Train to the end with `num_kills` kills on the way; return the number of kills of each kind."""
    kills: Counter[str] = Counter()
    verified = 0
    while kills.total() < num_kills:
        if run.start().poll() is not None:
            sys.exit("the run ended before all kills; increase --steps")
        victim = chance.choice(VICTIMS)
        wait_for_moment(run, victim, chance)
        if run.process is not None and run.process.poll() == 0:
            sys.exit(f"the run ended after {kills.total()} kills; increase --steps")
        if run.kill(victim, chance):
            kills[victim] += 1
            verified += verify_all(run.run_dir)
            print(f"kill {kills.total():>3} of {num_kills}: {victim}, at step {run.step()}", flush=True)
    while run.start().wait() != 0:
        print("restarted", flush=True)
    kills["checkpoints verified"] = verified
    return kills


def final_weights(run_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of the newest checkpoint."""
    step = checkpoint_steps(str(run_dir))[0]
    return {name: digest for name, (_, digest) in read_checkpoint(step_folder(str(run_dir), step)).files.items()}


def losses(run_dir: Path) -> list[tuple[int, float]]:
    """Return the step and loss of every logged training step."""
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [(record["step"], record["loss"]) for record in records if record["event"] == "train"]


def main(words: Sequence[str]) -> None:
    """Run the soak test; exit with code 1 if the two runs differ or a checkpoint is damaged."""
    parser = argparse.ArgumentParser(description="Kill and restart a training run repeatedly.", allow_abbrev=False)
    parser.add_argument("--folder", type=Path, required=True, help="empty folder for the two runs")
    parser.add_argument("--config", default="configs/quickstart.yaml", help="configuration of the runs")
    parser.add_argument("--data", default="shards/sample", help="folder of the shards")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1500, help="training steps of each run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="seed of the victims and moments")
    options = parser.parse_args(words)
    options.folder.mkdir(parents=True, exist_ok=True)
    if any(options.folder.iterdir()):
        parser.error(f"{options.folder} is not empty")
    start = time.monotonic()
    killed, whole = Run(options.folder / "killed", options), Run(options.folder / "whole", options)
    try:
        counts = soak(killed, options.kills, random.Random(options.seed))
        killed_seconds = time.monotonic() - start
        if whole.start().wait() != 0:
            sys.exit("the undisturbed run failed")
    finally:
        for run in (killed, whole):
            if run.process is not None and run.process.poll() is None:
                run.kill("everything", random.Random())
    same_weights = final_weights(killed.run_dir) == final_weights(whole.run_dir)
    same_losses = losses(killed.run_dir) == losses(whole.run_dir)
    for name, count in counts.items():
        print(f"{name:<24} {count}")
    print(f"final weights            {'bit-identical' if same_weights else 'DIFFERENT'}")
    print(f"losses of all steps      {'bit-identical' if same_losses else 'DIFFERENT'}")
    print(f"seconds, killed          {killed_seconds:.0f}")
    print(f"seconds, undisturbed     {time.monotonic() - start - killed_seconds:.0f}")
    sys.exit(not (same_weights and same_losses))


if __name__ == "__main__":
    run_program("benchmarks.soak", main)
