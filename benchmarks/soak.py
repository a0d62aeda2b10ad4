"""A soak test: one training run, killed a hundred times, must end with the weights of a run that nobody touched.

    python benchmarks/soak.py --folder /tmp/soak --kills 100

Everything is as a user has it: `torchrun --max-restarts`, real processes, SIGKILL. Four kinds of victims at random
moments: one rank; torchrun alone; everything; and one rank while a checkpoint is being written. After each kill every
checkpoint that is there must verify. It takes about half an hour on two cores, which is why it is no test of the suite.
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
# The longest that is waited for a moment to kill at.
PATIENCE = 120.0


class Run:
    """A training run under torchrun that can be started, killed and started again.

    Args:
        run_dir: its folder.
        options: of the soak.
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
        """Start it, unless it is running."""
        if self.process is None or self.process.poll() is not None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with self.run_dir.with_suffix(".log").open("ab") as log:
                self.process = subprocess.Popen(
                    self.command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
        return self.process

    def ranks(self) -> list[int]:
        """Process ids of the ranks that are running."""
        assert self.process is not None
        found: list[int] = []
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{self.process.pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found

    def kill(self, victim: str, chance: random.Random) -> bool:
        """SIGKILL a victim; False if there was nothing to kill."""
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
        """The last step that was logged; 0 before the first."""
        try:
            lines = (self.run_dir / "metrics.jsonl").read_text().split("\n")[:-1]
        except OSError:
            return 0
        return int(json.loads(lines[-1])["step"]) if lines else 0


def wait_for_moment(run: Run, victim: str, chance: random.Random) -> None:
    """Wait until it is time to kill: at any moment since the start, that of loading included, or inside a save."""
    if victim == "rank while saving":
        end, step = time.monotonic() + PATIENCE, run.step() + chance.randrange(25)
        while not (run.step() >= step and run.is_saving()) and time.monotonic() < end and run.start().poll() is None:
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.02))
    else:
        time.sleep(chance.uniform(0, 16))


def verify_all(run_dir: Path) -> int:
    """Check every checkpoint of the run that claims to be whole; gives their number.

    Raises:
        SystemExit: if one is damaged.
    """
    number = 0
    for step in checkpoint_steps(str(run_dir)):
        try:
            read_checkpoint(step_folder(str(run_dir), step))
            number += 1
        except CheckpointError as error:
            # Between two looks it may have been removed as too old.
            if step in checkpoint_steps(str(run_dir)):
                sys.exit(f"unreadable: {error}")
    return number


def soak(run: Run, num_kills: int, chance: random.Random) -> Counter[str]:
    """Train to the end, killed so many times on the way; gives how many kills were of which kind."""
    kills: Counter[str] = Counter()
    verified = 0
    while kills.total() < num_kills:
        if run.start().poll() is not None:
            sys.exit("the run ended before all kills; give more --steps")
        victim = chance.choice(VICTIMS)
        wait_for_moment(run, victim, chance)
        if run.process is not None and run.process.poll() == 0:
            sys.exit(f"the run ended after {kills.total()} kills; give more --steps")
        if run.kill(victim, chance):
            kills[victim] += 1
            verified += verify_all(run.run_dir)
            print(f"kill {kills.total():>3} of {num_kills}: {victim}, at step {run.step()}", flush=True)
    while run.start().wait() != 0:
        print("started again", flush=True)
    kills["checkpoints verified"] = verified
    return kills


def final_weights(run_dir: Path) -> dict[str, str]:
    """SHA-256 of every tensor file of the newest checkpoint."""
    step = checkpoint_steps(str(run_dir))[0]
    return {name: digest for name, (_, digest) in read_checkpoint(step_folder(str(run_dir), step)).files.items()}


def losses(run_dir: Path) -> list[tuple[int, float]]:
    """Step and loss of every line of metrics."""
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [(record["step"], record["loss"]) for record in records if record["event"] == "train"]


def main(words: Sequence[str]) -> None:
    """Run the soak test; exit code 1 if the runs differ or a checkpoint cannot be read."""
    parser = argparse.ArgumentParser(description="Kill a training run again and again.", allow_abbrev=False)
    parser.add_argument("--folder", type=Path, required=True, help="empty folder for the two runs")
    parser.add_argument("--config", default="configs/quickstart.yaml", help="of the model that is trained")
    parser.add_argument("--data", default="shards/sample", help="shards")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1500, help="of the run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments")
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
            sys.exit("the run that nobody touches failed")
    finally:
        for run in (killed, whole):
            if run.process is not None and run.process.poll() is None:
                run.kill("everything", random.Random())
    same_weights = final_weights(killed.run_dir) == final_weights(whole.run_dir)
    same_losses = losses(killed.run_dir) == losses(whole.run_dir)
    for name, count in counts.items():
        print(f"{name:<24} {count}")
    print(f"final weights            {'identical to the bit' if same_weights else 'DIFFERENT'}")
    print(f"losses of all steps      {'identical to the bit' if same_losses else 'DIFFERENT'}")
    print(f"seconds, killed          {killed_seconds:.0f}")
    print(f"seconds, untouched       {time.monotonic() - start - killed_seconds:.0f}")
    sys.exit(not (same_weights and same_losses))


if __name__ == "__main__":
    run_program("benchmarks.soak", main)
